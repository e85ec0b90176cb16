"""The papers' constructions and bounds as programs."""

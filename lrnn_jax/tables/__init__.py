"""A paper's tables and figures: declared, reproduced, rendered."""

"""The command ``lrnn generate``."""

import codecs
import math
import sys
from pathlib import Path

from absl import flags

from lrnn_jax.cli.flags import define_path, refuse_positional
from lrnn_jax.errors import UserError


def define_generate(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define_path("workdir", None, "the folder of a language model's run", values)
    flags.DEFINE_string("prompt", None, "the text's beginning (default: a new document)", values)
    define_path("prompt_file", None, "a file that holds it", values)
    flags.DEFINE_integer("tokens", 500, "most tokens to add; the end of the document ends the text", 1, flag_values=values)
    flags.DEFINE_float("temperature", 1.0, "divides the logits; 0 takes the most probable token", 0.0, flag_values=values)
    flags.DEFINE_integer("top_k", 0, "draw among that many most probable tokens; 0: all", 0, flag_values=values)
    flags.DEFINE_float("top_p", 1.0, "draw among the fewest tokens that have this probability", 0.0, 1.0, flag_values=values)
    flags.DEFINE_integer("seed", 0, "the same text for the same seed", 0, 2**32 - 1, flag_values=values)
    flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "which checkpoint", values)


def run_generate(values: flags.FlagValues, positional: list[str]) -> int:
    """Prints the text after the prompt as it is drawn, in whole characters."""
    refuse_positional(positional)
    if not values.workdir:
        raise UserError("lrnn generate needs --workdir=RUN")
    for name, value in (("temperature", values.temperature), ("top_p", values.top_p)):
        if not math.isfinite(value):
            raise UserError(f"--{name}={value} must be a finite number")
    prompt, named = _read_prompt(values)
    from lrnn_jax.analysis.generation import Sampling, generate, load_language_model
    from lrnn_jax.data.tokenizers import UnknownText

    language = load_language_model(Path(values.workdir), which=values.checkpoint)
    sampling = Sampling(values.temperature, values.top_k, values.top_p, values.seed)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    try:
        for token in generate(language, prompt, tokens=values.tokens, sampling=sampling):
            sys.stdout.write(decoder.decode(language.tokenizer.pieces[token]))
            sys.stdout.flush()
    except UnknownText as error:
        raise UserError(f"{named}: {error}") from error
    print(decoder.decode(b"", final=True))
    return 0


def _read_prompt(values: flags.FlagValues) -> tuple[str, str]:
    """Returns the prompt and the flag that it came by."""
    if values.prompt is not None and values.prompt_file is not None:
        raise UserError("--prompt and --prompt_file exclude each other")
    if values.prompt_file is None:
        return values.prompt or "", f"--prompt={values.prompt!r}"
    from lrnn_jax.data.sources import decode_text

    named = f"--prompt_file={values.prompt_file}"
    try:
        raw = Path(values.prompt_file).read_bytes()
    except OSError as error:
        raise UserError(f"{named}: cannot read it ({error.strerror})") from error
    return decode_text(raw, named), named

"""`python -m engine.models.convert --gguf FILE --out FOLDER`: a GGUF file to an ordinary float32 model folder."""

import argparse
import os
import shutil
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="made whole, or not at all")
    options = parser.parse_args()
    convert(options.gguf, options.out)


def convert(gguf: Path, out: Path) -> None:
    """The folder holds config, safetensors, tokenizer, chat template and generation config."""
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The weights are floats again: without these traces the folder loads as any other.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    tokenizer.save_pretrained(partial)
    model.save_pretrained(partial, safe_serialization=True)
    partial.rename(out)


if __name__ == "__main__":
    main()

"""Decodery as the loop of transformers' ``generate()``."""

from decodery.hf.generate import CustomGenerate, custom_generate

__all__ = ["CustomGenerate", "custom_generate"]

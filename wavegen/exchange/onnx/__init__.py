"""Vocoders as ONNX files: written, verified against torch, and rendered by onnxruntime."""

from pathlib import Path


def reader_path() -> Path:
    """The program that renders an exported file, which needs numpy and onnxruntime alone."""
    return Path(__file__).with_name("reader.py")

"""infer: a research engine for inference-time compute.

How a language model's answers get better when more is spent at decoding time, and what that truly costs. Start with
`infer solve --help`, or from Python with `infer.core.solve.solve`. Importing this package loads none of torch, vLLM and
transformers.
"""

__version__ = "0.1.0"

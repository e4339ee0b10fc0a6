"""How tests start engines."""

from typing import Any

TESTED: dict[str, Any] = {"dtype": "float32", "log_stats": True, "memory_fraction": 0.15, "in_process": True}
"""Options of `start_engine`: vLLM's own counters kept, and inside the process also on a GPU."""

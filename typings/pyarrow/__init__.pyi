# pyarrow ships no types. What leaves it is checked where it enters a typed function.
from typing import Any

def __getattr__(name: str) -> Any: ...

"""The functions of the plain verbs, each imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module

from instructgpt.verbs import VERBS


class VerbFunctions(Mapping[str, Callable[..., None]]):
    """A verb stands in a module of its name, and what a verb needs may take seconds to import."""

    def __getitem__(self, verb: str) -> Callable[..., None]:
        """The function of a verb."""
        if verb not in list(self):
            raise KeyError(verb)
        function: Callable[..., None] = getattr(import_module(f"{__package__}.{verb}"), verb)
        return function

    def __iter__(self) -> Iterator[str]:
        """The names of the plain verbs."""
        return (name for name, verb in VERBS.items() if not verb.trainer and name != "pipeline")

    def __len__(self) -> int:
        """How many there are."""
        return len(list(iter(self)))


FUNCTIONS = VerbFunctions()
"""All but ``pipeline``, which reads its options itself and runs these."""

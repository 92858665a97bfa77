"""What a backup leaves out: patterns in gitignore syntax."""

from __future__ import annotations

from collections.abc import Sequence

from pathspec import GitIgnoreSpec

from capstan.errors import InvalidValue


class ExcludeRules:
    """Matches paths relative to a root. A pattern with a leading or inner `/` is anchored at the root, as in git."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """InvalidValue for a pattern that is none."""
        try:
            self._spec = GitIgnoreSpec.from_lines(patterns)
        except ValueError as error:
            raise InvalidValue(what="exclude pattern", value=" ".join(patterns), reason=str(error)) from None
        self._empty = not any(pattern.strip() for pattern in patterns)

    def __bool__(self) -> bool:
        return not self._empty

    def match(self, path: bytes, *, directory: bool) -> bool:
        """Whether to leave out `path`, relative to its root. An excluded directory is not entered."""
        text = path.decode("utf-8", "surrogateescape")
        return self._spec.match_file(text + "/" if directory else text)

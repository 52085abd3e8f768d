"""Reads a Dockerfile as far as Dockerfile.jetson goes: instructions, their stages, continuation lines, comments."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continuation lines joined: `word` is in upper case, `text` all that follows."""

    word: str
    text: str

    @property
    def words(self) -> list[str]:
        """Without flags such as `--from=`."""
        return [word for word in self.text.split() if not word.startswith("--")]

    @property
    def listed(self) -> Any:
        """The text from its first bracket on, read as JSON."""
        return json.loads(self.text[self.text.index("[") :])


@dataclass
class Stage:
    """What stands between one FROM and the next; the first holds what stands before any."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def of(self, word: str) -> list[Instruction]:
        """Its instructions of one kind."""
        return [one for one in self.instructions if one.word == word]

    @property
    def arguments(self) -> dict[str, str]:
        """Default by name of its ARG instructions."""
        return dict(one.text.partition("=")[::2] for one in self.of("ARG"))


def stages(text: str) -> list[Stage]:
    """All stages in order, before them what precedes the first FROM."""
    found = [Stage("", "")]
    for instruction in _instructions(text):
        if instruction.word == "FROM":
            base, _, name = instruction.words
            found.append(Stage(name, base))
        else:
            found[-1].instructions.append(instruction)
    return found


def _instructions(text: str) -> list[Instruction]:
    found: list[Instruction] = []
    joined = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or (not line.strip() and not joined):
            continue
        joined += line
        if joined.endswith("\\"):
            joined = joined[:-1] + " "
            continue
        word, _, rest = joined.partition(" ")
        found.append(Instruction(word.upper(), rest.strip()))
        joined = ""
    return found

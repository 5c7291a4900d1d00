"""A conversation in the terminal: with one policy or two, and what a reward model says of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.commands.policy import Policy
from instructgpt.data.checks import check_text
from instructgpt.data.formats import Row
from instructgpt.data.questions import least_response_tokens
from instructgpt.data.turns import Turns, written
from instructgpt.models.chat import RefusedPromptError
from instructgpt.models.folder import check_writable, write_text
from instructgpt.models.load import Network
from instructgpt.rewards.learned import LearnedReward, reads_alone
from instructgpt.rollout import answer
from instructgpt.rollout.answer import Wish
from instructgpt.rollout.drawing import Request
from instructgpt.rollout.live_text import LiveText
from instructgpt.rollout.sampler import Texts
from instructgpt.terminal import note, say
from instructgpt.types import Prompt, Sample, UserError, require

COMMANDS = "/reset, /save FILE, /system TEXT"


class Side:
    """A policy and the conversation that it has had.

    Args:
        name: of the model, as given.
        policy: that answers.
        label: stands in front of what is said about it; "" where there is no other.
    """

    def __init__(self, name: str, policy: Policy, label: str = "") -> None:
        self.name, self.policy, self.label = name, policy, label
        self.system = ""
        self.turns: Turns = []  # the user's and the assistant's in turn
        self.cut: list[int] = []  # places among them of answers that did not end by themselves
        self._begin = 0  # of the turns that there is room for

    def reset(self) -> None:
        """Forget all turns but the system's."""
        self.turns, self.cut, self._begin = [], [], 0

    def set_system(self, text: str) -> None:
        """Put a message of the system in front of the conversation, or none.

        Args:
            text: of the message; "" for none.

        Raises:
            UserError: the template has no place for it.
        """
        if text:
            turns = [_turn("system", text), _turn("user", "Hello")]
            try:
                self._tokens(turns)
            except RefusedPromptError as error:
                rule = f"{self.label}/system: the model has no system message"
                raise UserError(f"{rule}: {error}") from error
        self.system = text

    def conversation(self, begin: int = 0) -> Turns:
        """The system's turn, if there is one, and those from ``begin`` on."""
        system = [_turn("system", self.system)] if self.system else []
        return [*system, *self.turns[begin:]]

    def answer(self, text: str, wish: Wish, number: int) -> tuple[Prompt, list[tuple[str, bool]]]:
        """Answer while it is drawn, and keep what was said, also where it is interrupted.

        Args:
            text: of the user.
            wish: what is asked for.
            number: of the prompt since the start, which names its noise.

        Returns:
            What was read, and the text of each response with whether it is finished.
        """
        asked = _turn("user", text)
        begin = self._fitting(asked, wish)
        turns = [*self.conversation(begin), asked]
        prompt = Prompt(written(turns), turns, f"prompt {number + 1}", {})
        given = Row(prompt.id, prompt, [], [], "", "", "")
        wish, (row,) = self.policy.encode([given], wish)
        if begin > self._begin:
            self._begin = begin
            room = f"{self.label}a context of {self.policy.context} tokens has no room for all"
            note(f"{room}: the {begin} oldest turns are no longer read")
        network, tokenizer, template, *_ = self.policy
        texts = Texts(tokenizer, template, wish.max_response_tokens)
        live = LiveText(texts, wish.sampling, partial(say, end=""))
        request = Request(row.tokens.tolist(), number, prompt.id)
        try:
            answer.speak(network, request, wish, texts, live)
        finally:
            say("")
            self.keep(asked, live.said())
        return prompt, live.said()

    def keep(self, asked: dict[str, str], said: Sequence[tuple[str, bool]]) -> None:
        """Go on from the first response; without words, it is as if nothing had been asked."""
        text, finished = next(iter(said), ("", False))
        if text.strip():
            if not finished:
                self.cut.append(len(self.turns) + 1)
            self.turns += [asked, _turn("assistant", text)]
        else:
            note(f"{self.label}an answer without words: it and its prompt are not kept")

    def _fitting(self, asked: dict[str, str], wish: Wish) -> int:
        """From which turn on there is room for the conversation: from a user's one."""
        begin, context = self._begin, self.policy.context
        if context is None:
            return begin
        limit = context - (wish.max_response_tokens or least_response_tokens(context))
        while (
            begin < len(self.turns)
            and len(self._tokens([*self.conversation(begin), asked])) > limit
        ):
            begin += 2
        return begin

    def _tokens(self, turns: Turns) -> list[int]:
        prompt = Prompt(written(turns), turns, "", {})
        return self.policy.template.encode_prompt(self.policy.tokenizer, prompt)


def _turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


class Critic(NamedTuple):
    """A reward model that is asked for its scores.

    It reads the text, in its own template and tokens.
    """

    name: str
    reward: LearnedReward

    @classmethod
    def load(cls, source: str, network: Network, like: Policy) -> Critic:
        """Load a reward model.

        Args:
            source: folder or hub id.
            network: how it is held.
            like: a policy, on whose device it is to be.
        """
        device = next(like.network.parameters()).device
        reward = reads_alone(source, "--reward_model", device, network)
        return cls(source, reward)

    def say_scores(self, prompt: Prompt, said: Sequence[tuple[str, bool]]) -> None:
        """Say the scores of the responses to a prompt, and whose they are.

        Args:
            prompt: that was answered.
            said: texts of the responses, and whether each is finished.
        """
        template, tokenizer = self.reward.template, self.reward.tokenizer
        tokens = template.encode_prompt(tokenizer, prompt)
        samples = [
            Sample(prompt, text, tokens, template.encode_response(tokenizer, text, end), end)
            for text, end in said
        ]
        scores = ", ".join(f"{score:.3f}" for score in self.reward.score(samples).tolist())
        say(f"[score {scores} by {self.name}]")


def converse(sides: Sequence[Side], critic: Critic | None, wish: Wish) -> None:
    """Answer line by line, until an empty line, the end of the input, or Ctrl-C.

    Ctrl-C stops the answer that is being written; a second one before the next line leaves.

    Args:
        sides: that answer, one after the other.
        critic: of the answers.
        wish: what is asked for.
    """
    for side in sides:
        note(f"{side.label}{side.policy.choice}")
    for finding in () if critic is None else critic.reward.warnings():
        note(str(finding))
    number = 0
    for line in lines():
        try:
            check_text("terminal", "line", line)
            if line.startswith("/"):
                command(line, sides)
                continue
            number += 1
            ask(line, sides, critic, wish, number - 1)
        except UserError as error:  # of this line only
            say(f"instructgpt: {error}", error=True)


def lines() -> Iterator[str]:
    """Lines that are typed or piped, up to an empty one or the end."""
    terminal = sys.stdin.isatty()
    if terminal:
        with suppress(ImportError):  # not on every system
            import readline  # noqa: F401  # lines can be edited, and earlier ones come again
        note(f"{COMMANDS}; an empty line ends")
    while True:
        try:
            line = input("> " if terminal else "")
        except (EOFError, KeyboardInterrupt) as end:
            if terminal:
                say("")  # what comes next has a line of its own
            if isinstance(end, KeyboardInterrupt):
                raise
            return
        except UnicodeDecodeError as error:
            raise UserError(f"what is typed must be UTF-8, got {error.object!r:.60}") from error
        if not line.strip():
            return
        yield line


def ask(text: str, sides: Sequence[Side], critic: Critic | None, wish: Wish, number: int) -> None:
    """Have each side answer a prompt.

    Args:
        text: of the prompt.
        sides: that answer, one after the other.
        critic: of the answers.
        wish: what is asked for.
        number: of the prompt since the start.
    """
    stopped = False
    for side in sides:
        if side.label:
            say(f"[{side.label.removesuffix(': ')}]")
        try:
            prompt, said = side.answer(text, wish, number)
            if critic is not None:
                critic.say_scores(prompt, said)
        except KeyboardInterrupt:
            if stopped:
                raise
            stopped = True
            note("stopped; Ctrl-C once more leaves")
        except UserError as error:  # the other one may answer
            say(f"instructgpt: {side.label}{error}", error=True)


def command(line: str, sides: Sequence[Side]) -> None:
    """Do what a line with a slash in front says.

    Args:
        line: as typed.
        sides: that it is about.
    """
    name, *more = line.split(maxsplit=1)
    rest = more[0].strip() if more else ""
    if name == "/system":
        for side in sides:
            set_system(rest, side)
    elif name == "/save":
        save(rest, sides)
    elif name == "/reset":
        require(not rest, "/reset", "alone on its line", rest)
        for side in sides:
            side.reset()
        kept = "; the system message stays" if any(side.system for side in sides) else ""
        say(f"the conversation is forgotten{kept}", error=True)
    else:
        hint = f"there are {COMMANDS} (a prompt that begins with / needs a space before it)"
        raise UserError(f"unknown command {name}; {hint}")


def set_system(text: str, side: Side) -> None:
    """Set or clear the message of the system, and say so.

    Args:
        text: of the message; "" clears it.
        side: whose template may have no place for it.
    """
    try:
        side.set_system(text)
    except UserError as error:  # the other one may have a place
        say(f"instructgpt: {error}", error=True)
        return
    now = f"the system message is: {text}" if text else "there is no system message"
    say(f"{side.label}{now}", error=True)


def save(name: str, sides: Sequence[Side]) -> None:
    """Write the whole conversation of each side as a row that ``fit`` and ``generate`` read.

    Args:
        name: of the file.
        sides: whose conversations they are.
    """
    from instructgpt.callbacks.common import json_lines

    if not name.endswith(".jsonl"):
        raise UserError(f"/save must name a file of JSONL, such as chat.jsonl, got '{name}'")
    rows = [saved(number, side) for number, side in enumerate(sides, 1) if side.turns]
    if not rows:
        raise UserError("/save: nothing has been answered yet")
    try:
        path = Path(name).expanduser()
        if path.exists() or path.is_symlink():
            raise UserError(f"/save must name a new file, {path} is there already")
        check_writable(path.parent, "the folder of /save")
        write_text(path, json_lines(rows))
    except (OSError, RuntimeError) as error:  # of the file system, or no such user
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"/save {name}: {reason}") from error
    turns = " and ".join(str(len(row["messages"])) for row in rows)
    cut = sum(len(side.cut) for side in sides)
    said = "" if not cut else f'; "cut" says which turns ({cut}) are answers that did not end'
    say(f"wrote {turns} turns to {path}{said}", error=True)


def saved(number: int, side: Side) -> dict[str, Any]:
    """A conversation as a row; ``cut`` numbers the turns that did not end by themselves.

    Args:
        number: of the conversation.
        side: that had it.
    """
    turns = side.conversation()
    row = {"id": f"conversation {number}", "messages": turns, "source": side.name}
    before = len(turns) - len(side.turns)
    return {**row, "cut": [before + place + 1 for place in side.cut]} if side.cut else row

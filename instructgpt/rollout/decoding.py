"""Decoding in slots: rows leave when they end, and waiting prompts take their place at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn

from instructgpt.models.forward import base_network, device_of, of_known_ids
from instructgpt.models.slot_attention import SlotNetwork
from instructgpt.models.slots import Call, Entrance, Fit, Range, Slots
from instructgpt.rollout.drawing import Drawing, Response
from instructgpt.rollout.graphs import Graphs

LOOKAHEAD = 16
"""Waiting prompts, in times of the slots, that are sorted by length."""


class Pace(NamedTuple):
    """What suits a kind of device."""

    shelves: int  # calls of attention a layer; a shelf is attended to as if all were its longest
    widths: int  # columns are attended to in multiples of it
    looks: int  # steps between two looks at what has ended, each of which waits for the device
    entering: int  # tokens of prompts in a call; bounds the memory of their states
    openings: float  # share of the slots that is free before prompts enter, while others go on
    graphs: bool  # whether a step is sent as a CUDA graph, of one of a few numbers of rows


PACES = {
    "cpu": Pace(shelves=8, widths=1, looks=1, entering=2048, openings=0.0, graphs=False),
    "cuda": Pace(shelves=1, widths=128, looks=8, entering=8192, openings=0.125, graphs=True),
}
"""By the type of a device. Every one but the CPU is left to itself between two looks: it is sent
the same few kernels of the same shapes again and again, in which nothing waits for it."""
ELSEWHERE = Pace(shelves=1, widths=64, looks=8, entering=2048, openings=0.125, graphs=False)
FEWEST = 8
"""Rows of a graph: fewer take as long, as all weights are read."""


def pace_of(device: torch.device) -> Pace:
    """What suits a device.

    Args:
        device: of the network.
    """
    return PACES.get(device.type, ELSEWHERE)


class LiveRow:
    """A row that is being answered."""

    def __init__(self, number: int, seat: int, prompt: list[int]) -> None:
        self.number, self.seat, self.prompt = number, seat, prompt
        self.length = len(prompt) - 1  # tokens in its slot; the newest is not
        self.drawn = 0


class Shelves:
    """Which row is in which slot: rows of like length side by side.

    Args:
        slots: how many there are.
        pace: how many shelves, and how wide.
    """

    def __init__(self, slots: int, pace: Pace) -> None:
        self.size, self._widths = -(-slots // pace.shelves), pace.widths
        starts = range(0, slots, self.size)
        self.rows: list[list[LiveRow | None]] = [[] for _ in starts]
        self._sizes = [min(self.size, slots - start) for start in starts]

    def place(self, row: LiveRow) -> int | None:
        """Put a row where it costs least, and return its slot; None where all are full."""
        best, least = None, 0
        for shelf, (rows, size) in enumerate(zip(self.rows, self._sizes, strict=True)):
            there = [other.length for other in rows if other is not None]
            if len(there) == size:
                continue
            width = max(there, default=0)
            cost = max(width, row.length) * (len(there) + 1) - width * len(there)
            if best is None or cost < least:
                best, least = shelf, cost
        if best is None:
            return None
        rows = self.rows[best]
        if None in rows:
            place = rows.index(None)
            rows[place] = row
        else:
            place = len(rows)
            rows.append(row)
        return best * self.size + place

    def remove(self, gone: set[int]) -> None:
        """Take the rows in some seats out."""
        for rows in self.rows:
            rows[:] = [None if row is None or row.seat in gone else row for row in rows]

    def compact(self, slots: Slots) -> None:
        """Move the last rows of each shelf into its gaps."""
        for shelf, rows in enumerate(self.rows):
            first = shelf * self.size
            while rows and rows[-1] is None:
                rows.pop()
            while None in rows:
                gap, last = rows.index(None), rows.pop()
                assert last is not None
                slots.move(first + len(rows), first + gap, last.length)
                rows[gap] = last
                while rows and rows[-1] is None:
                    rows.pop()

    def live(self) -> list[tuple[int, LiveRow]]:
        """Slots in order with their rows."""
        places = ((shelf * self.size, rows) for shelf, rows in enumerate(self.rows))
        return [(s, r) for start, rows in places for s, r in enumerate(rows, start) if r]

    def ranges(self, more: int, idle: int = 0) -> list[Range]:
        """What is attended to in one call.

        Args:
            more: tokens that every row has got since its length was noted, the newest included.
            idle: rows that nobody reads, behind those of the only shelf.
        """
        found, start = [], 0
        for shelf, rows in enumerate(self.rows):
            if rows:
                width = rounded(max(row.length for row in rows if row) + more, self._widths)
                count = len(rows) + idle
                found.append(Range(shelf * self.size, range(start, start + count), width))
                start += count
        return found


def rounded(count: int, step: int) -> int:
    """The next multiple.

    Args:
        count: to round up.
        step: multiples of it.
    """
    return -(-count // step) * step


class Entering(NamedTuple):
    """A prompt that enters, without its last token, and the slots that begin with it."""

    tokens: list[int]
    slots: list[int]


class Live(NamedTuple):
    """The rows of a step; each changes in place, so that a graph of a step finds them again."""

    seats: Tensor  # [N]
    positions: Tensor  # [N] of their newest tokens
    places: Tensor  # [N] of these in the memory
    tokens: Tensor  # [N] the newest


class SlotDecoder:
    """Answers requests in slots.

    Args:
        model: a causal language model whose attention can be that of slots.
        drawing: of its responses, with a seat for each slot.
        slots: how many rows at once.
        fit: how they are remembered.
    """

    def __init__(self, model: nn.Module, drawing: Drawing, slots: int, fit: Fit) -> None:
        network = base_network(model)
        self._network, self._caller = network, SlotNetwork(network)
        self._device = device_of(network)
        requests, self._drawing = drawing.requests, drawing
        longest = max(len(request.tokens) for request in requests)
        self._pace = pace_of(self._device)
        length = rounded(longest + drawing.ends.limit, self._pace.widths)
        most = [self._most(number) for number in range(len(requests))]
        sizes = (slots, length, self._device, fit.token_bytes)
        self._slots = fit.slots.made_for(most, *sizes)
        if self._slots.ragged:  # no width matters
            self._pace = self._pace._replace(shelves=1, widths=self._slots.length)
        self._shelves = Shelves(slots, self._pace)
        self._free = list(reversed(range(slots)))  # seats
        self._waiting = deque(by_length([len(r.tokens) for r in requests], LOOKAHEAD * slots))
        self._newest = torch.zeros(slots, dtype=torch.int64, device=self._device)  # by seat
        self._live = torch.zeros(len(Live._fields), slots, dtype=torch.int64, device=self._device)
        self._graphs = Graphs(network.config.model_type) if self._pace.graphs else None

    @torch.no_grad()
    def run(self) -> Iterator[list[Response]]:
        """The responses, as they end."""
        while self._waiting or len(self._free) < self._slots.count:
            entering = self._enter() if self._opens() else []
            self._shelves.compact(self._slots)
            live = self._shelves.live()
            ended = self._burst(live, entering)
            seats = [row.seat for row in ended]
            self._shelves.remove(set(seats))
            for slot, row in live:
                if row.seat in seats:
                    self._slots.leave(slot)
            self._free += seats
            if ended:
                yield self._drawing.responses(seats)

    @property
    def token_bytes(self) -> int:
        """Bytes of a token in the memory of all layers; 0 before the first call."""
        return self._slots.token_bytes

    def missing_windows(self) -> int:
        """Tokens that some layers see according to the configuration, but did not ask for; or 0."""
        config = self._network.config.get_text_config()
        window: int | None = getattr(config, "sliding_window", None)
        if not window or getattr(config, "use_sliding_window", True) is False:
            return 0
        return 0 if window in self._slots.windows else window

    def _enter(self) -> list[Entering]:
        """Let waiting prompts take the free slots; those that are equal are computed once."""
        entering: dict[tuple[int, ...], Entering] = {}
        living = {tuple(row.prompt): slot for slot, row in self._shelves.live()}
        seats, numbers, tokens = [], [], 0
        while self._has_room() and tokens < self._pace.entering:
            number = self._waiting.popleft()
            prompt = self._drawing.requests[number].tokens
            row = LiveRow(number, self._free.pop(), prompt)
            slot = self._shelves.place(row)
            assert slot is not None
            seats.append(row.seat)
            numbers.append(number)
            name, most = tuple(prompt), self._most(number)
            if name in living:
                self._slots.enter(slot, row.length, most, living[name])
                self._slots.copy(living[name], slot, row.length)
            elif name in entering:
                self._slots.enter(slot, row.length, most, entering[name].slots[0])
                entering[name].slots.append(slot)
            else:
                self._slots.enter(slot, row.length, most)
                entering[name] = Entering(prompt[:-1], [slot])
                tokens += row.length
        if seats:
            self._drawing.seat(seats, numbers)
            last = [self._drawing.requests[number].tokens[-1] for number in numbers]
            self._newest[torch.tensor(seats)] = torch.tensor(last, device=self._device)
        return [one for one in entering.values() if one.tokens]

    def _opens(self) -> bool:
        """Whether prompts wait, and enough slots are free for them."""
        enough = max(1, int(self._pace.openings * self._slots.count))
        return self._has_room() and len(self._free) >= enough

    def _has_room(self) -> bool:
        """Whether a prompt waits that can have a seat, and a slot for all that it can become."""
        if not self._waiting or not self._free:
            return False
        return self._slots.fits(self._most(self._waiting[0]))

    def _most(self, number: int) -> int:
        """Tokens that the row of a request can have in its slot: the last one is not read again."""
        return len(self._drawing.requests[number].tokens) + self._drawing.ends.limit - 1

    def _burst(self, rows: list[tuple[int, LiveRow]], entering: list[Entering]) -> list[LiveRow]:
        """Draw tokens until a row ends or a slot can be taken; return the rows that ended."""
        live, seats = self._begin(rows)
        idle, opens = len(live.seats) - len(rows), self._opens()
        room = self._drawing.ends.limit - max(row.drawn for _, row in rows)
        ended: list[LiveRow] = []
        for step in count(1):
            ranges = self._shelves.ranges(step, idle)
            # What the first call makes must be there before a graph is recorded.
            if self._graphs is None or entering or not self._slots.token_bytes:
                self._step(live, ranges, entering)
                entering = []
            else:
                self._graphs.run((len(live.seats), ranges[0].width), self._step, live, ranges)
            self._drawing.tell(seats)
            if step == room or opens or step % self._pace.looks == 0:
                going = self._drawing.going(seats)
                ended = [row for (_, row), goes in zip(rows, going, strict=True) if not goes]
                if ended or opens:
                    break
        for _, row in rows:
            row.length += step
            row.drawn += step
        self._newest[live.seats] = live.tokens
        return ended

    def _begin(self, rows: list[tuple[int, LiveRow]]) -> tuple[Live, Tensor]:
        """The rows of the next steps, with some that nobody reads; and the seats of the others."""
        size, place = len(rows), self._slots.place
        facts = [(row.seat, row.length, place(slot, row.length)) for slot, row in rows]
        if self._graphs is not None:
            size = self._slots.count
            while (half := -(-size // 2)) >= max(len(rows), FEWEST):
                size = half
            idle = range(len(rows), size)  # these slots are free, and so are as many seats
            facts += [
                (seat, 0, place(slot, 0)) for slot, seat in zip(idle, self._free, strict=False)
            ]
        self._slots.settle()
        live = Live(*self._live[:, :size])
        self._live[:3, :size] = torch.tensor(facts).T
        live.tokens.copy_(self._newest[live.seats])
        return live, live.seats[: len(rows)]

    def _step(self, live: Live, ranges: Sequence[Range], entering: Sequence[Entering] = ()) -> None:
        """Draw the next token of each row."""
        call = Call(self._slots, ranges, live.places, live.positions)
        self._slots.note(live.places)
        if entering:
            logits = self._with(entering, live.tokens, call)
        else:
            logits = self._caller.logits(live.tokens, call)
        logits = of_known_ids(self._network, logits)
        live.tokens.copy_(self._drawing.draw(live.seats, logits))
        live.positions.add_(1)
        self._slots.advance(live.places, live.positions)

    def _with(self, entering: Sequence[Entering], token: Tensor, call: Call) -> Tensor:
        """The logits of the live tokens, while prompts enter in the same call."""
        start = len(token)
        tokens, places, memory, written, source = [], [], [], [], []
        for prompt, slots in entering:
            own = torch.arange(len(prompt))
            tokens.append(torch.tensor(prompt))
            places.append(own)
            memory.append(self._slots.places(slots[0], len(prompt)))
            written += [self._slots.places(slot, len(prompt)) for slot in slots]
            source += [own + start] * len(slots)
            start += len(prompt)

        def joined(old: Tensor, new: Sequence[Tensor]) -> Tensor:
            return torch.cat([old, torch.cat(list(new)).to(self._device)])

        call.entrances = entrances([len(prompt) for prompt, _ in entering], call.live, self._device)
        call.source = joined(torch.arange(len(token), device=self._device), source)
        call.written, call.places = joined(call.places, written), joined(call.places, memory)
        call.positions = joined(call.positions, places)
        return self._caller.logits(joined(token, tokens), call)


def by_length(lengths: Sequence[int], window: int) -> list[int]:
    """Numbers of rows by length, the longest first, in windows, so that the first come first.

    Args:
        lengths: of the rows.
        window: how many are sorted together.

    Examples:
        >>> by_length([1, 3, 2, 5, 4], 3)
        [1, 2, 0, 3, 4]
    """
    starts = range(0, len(lengths), window)
    parts = (range(start, min(start + window, len(lengths))) for start in starts)
    return [row for part in parts for row in sorted(part, key=lambda i: -lengths[i])]


def entrances(lengths: Sequence[int], start: int, device: torch.device) -> list[Entrance]:
    """Prompts that lie one after the other as rectangles that are filled by three quarters.

    Args:
        lengths: tokens of each.
        start: place of the first one's first token.
        device: of the indices.
    """
    starts = torch.tensor(lengths).cumsum(0) - torch.tensor(lengths) + start
    found = []
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        width = lengths[order[0]]
        chosen = [i for i in order if 4 * lengths[i] >= 3 * width]
        order = order[len(chosen) :]
        own, columns = torch.tensor(lengths)[chosen][:, None], torch.arange(width)
        gather = (starts[chosen][:, None] + columns.minimum(own - 1)).flatten()
        real = (columns < own).flatten().nonzero().squeeze(1)
        index = (gather.to(device), gather[real].to(device), real.to(device))
        found.append(Entrance(len(chosen), width, *index))
    return found

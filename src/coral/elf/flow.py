"""How control flows through one function: its instructions, where each goes, how deep the stack is, and where calls end.

Instructions are found by following control from the entry, not by decoding in a row, because code may hold data. Along every
edge goes a ``State`` (what registers hold relative to the entry); where two ways meet, what they do not agree on is unknown.

The one thing that code does not say is whether a callee returns. A callee is taken to return, unless its name is known not
to, or what follows the call is also reached in another way with another depth of stack: a compiler never lets the depth at an
instruction depend on the way that led there, so that call cannot have returned. The ways behind calls are therefore followed
last. Should this drop a way that exists, then exits stay that were not reached, and those make the function ``ENTRY_ONLY``.
"""

from __future__ import annotations

from collections import deque

from coral.elf import jumptables, outside
from coral.elf.arch import Flow, Instruction, State, Value, ValueKind
from coral.elf.body import Body, Trail
from coral.elf.exits import Exits
from coral.elf.outside import Destination, Region, Verdict
from coral.elf.program import Program
from coral.elf.symbols import Function
from coral.elf.unwinder import Unwinder
from coral.model.addresses import Vaddr

_ROUNDS = 64
_LARGEST = 400_000  # instructions; the largest functions of PostgreSQL and of the go tool have a tenth of that
_PATH = 48
_TRAPPING_BYTES = 4096


def explore(program: Program, function: Function, *, go: bool, resumes_at: Vaddr | None = None) -> Body:
    """Follows a function's control flow.

    Args:
        program: The image.
        function: The function; its symbol must have a size.
        go: Whether it follows Go's calling convention.
        resumes_at: Where Go's runtime makes it go on after a recovered panic.
    """
    never: set[int] = set()
    regions = [Region(function.vaddr, function.end, True)]
    for _ in range(_ROUNDS):
        walk = _Walk(program, function, regions, go=go, resumes_at=resumes_at, never=never)
        walk.run()
        regions = walk.body.regions
        if walk.never <= never:
            break
        never = walk.never
    Exits(program, walk.body, walk.trail).collect()
    return walk.body


class _Walk:
    """One pass over a function."""

    def __init__(
        self,
        program: Program,
        function: Function,
        regions: list[Region],
        *,
        go: bool,
        resumes_at: Vaddr | None,
        never: set[int],
    ) -> None:
        self.program = program
        self.arch = program.arch
        self.end = function.end
        self.body = Body(function=function, regions=list(regions))
        self.go = go
        self.resumes_at = resumes_at
        self.known_never = never
        self.never = set(never)
        self.trail = Trail(unwinder=Unwinder(program))
        for region in regions:
            self._take_in(region)
        self.pending: deque[Vaddr] = deque()
        self.after_calls: deque[tuple[Vaddr, State, Vaddr]] = deque()
        self.only_after_call: dict[int, Vaddr] = {}
        self.came_from: dict[int, int] = {}

    def run(self) -> None:
        """Follows everything that can be followed."""
        function = self.body.function
        self._arrive(function.vaddr, self.arch.initial)
        resumed = not self.go
        while True:
            if self.pending:
                self._step(self.pending.popleft())
            elif self.after_calls:
                vaddr, state, call = self.after_calls.popleft()
                self._arrive(vaddr, state, call=call)
            elif not resumed:
                self._resume()
                resumed = True
            elif not self._land_elsewhere() and not self._decide():
                return
            if len(self.body.instructions) > _LARGEST:
                self.body.fail(f"has more than {_LARGEST:,} instructions")
                return

    def _inside(self, vaddr: int) -> bool:
        function = self.body.function
        if function.vaddr <= vaddr < self.end:
            return True
        return any(region.start <= vaddr < region.end for region in self.body.regions)

    def _is_end(self, vaddr: Vaddr) -> bool:
        """Whether it lies just behind the code of the function, which goes on nowhere near there."""
        if not any(vaddr == region.end for region in self.body.regions):
            return False
        return not outside.begins_part(self.program, self.body.function, vaddr)

    def _take_in(self, region: Region) -> None:
        """Reads what there is to know of a region: its instructions in a row, and what the unwinder knows of it."""
        if not self.go:
            self.trail.unwinder.add(region)
        if region.exact:
            for instruction in self.program.decode(region.start, region.end - region.start):
                self.trail.rows[instruction.address] = instruction

    def _instruction(self, vaddr: Vaddr) -> Instruction | None:
        found = self.trail.rows.get(vaddr)
        if found is not None:
            return found
        region = next(region for region in self.body.regions if vaddr in region)
        for instruction in self.program.decode(vaddr, region.end - vaddr, 32):
            self.trail.rows.setdefault(instruction.address, instruction)
        return self.trail.rows.get(vaddr)

    def _arrive(self, vaddr: Vaddr, state: State, *, call: Vaddr | None = None, origin: int = -1) -> None:
        """One more way leads to ``vaddr``, behind ``call`` if that is given."""
        body = self.body
        old = body.states.get(vaddr)
        if origin >= 0:
            self.came_from.setdefault(vaddr, origin)
        if old is None:
            body.states[vaddr] = state
            if call is not None:
                self.only_after_call[vaddr] = call
            self.pending.append(vaddr)
            if call is not None:
                body.successors.setdefault(call, set()).add(vaddr)
            return
        before, now = self.arch.stack(old), self.arch.stack(state)
        if before is not None and now is not None and before != now:
            if call is not None:
                self.never.add(call)
                return
            earlier = self.only_after_call.pop(vaddr, None)
            if earlier is not None:
                self.never.add(earlier)
                body.states[vaddr] = state
                self.pending.append(vaddr)
                return
        if call is None:
            self.only_after_call.pop(vaddr, None)
        else:
            body.successors.setdefault(call, set()).add(vaddr)
        joined = _join(old, state)
        if joined != old:
            body.states[vaddr] = joined
            self.pending.append(vaddr)

    def _go_on(self, instruction: Instruction, state: State) -> None:
        """The way to the next instruction."""
        call = self.only_after_call.get(instruction.address)
        if call is not None and not self.arch.is_padding(instruction):
            call = None
        if not self._inside(instruction.end):
            if call is None:
                self.body.fail(f"runs past its end at {self.body.place(instruction.address)}")
            return
        self.body.successors[instruction.address].add(instruction.end)
        self._arrive(instruction.end, state, call=call, origin=instruction.address)

    def _jump(self, instruction: Instruction, target: Vaddr, state: State) -> None:
        """The way to a jump's target, inside or outside."""
        address = instruction.address
        depth = self.arch.stack(state)
        if not self._inside(target):
            if depth and self._is_end(target):
                return  # no tail call, with the stack in use: the empty block that __builtin_unreachable() leaves at an end
            known = self.trail.leaving.get(address)
            if known is not None and known[0] == target:
                return
            destination = outside.resolve(self.program, self.body.function, target, depth)
            if destination.verdict is not Verdict.PART or destination.region is None:
                self.trail.leaving[address] = (target, destination)
                return
            self._add(destination.region)
        self.body.successors[address].add(target)
        self._arrive(target, state, origin=address)

    def _add(self, region: Region) -> None:
        self.body.regions.append(region)
        self._take_in(region)

    def _step(self, vaddr: Vaddr) -> None:
        body = self.body
        while True:
            state = body.states[vaddr]
            instruction = self._instruction(vaddr)
            if instruction is None:
                self.body.fail(f"has bytes that do not decode at {self.body.place(vaddr)}")
                return
            body.instructions[vaddr] = instruction
            body.successors.setdefault(vaddr, set())
            flow, target = instruction.flow, instruction.target
            if flow is not Flow.NEXT:
                break
            state, end = self.arch.after(instruction, state, go=self.go), instruction.end
            if end in body.states or vaddr in self.only_after_call or not self._inside(end):
                self._go_on(instruction, state)
                return
            # Nothing else leads there yet, as far as is known: straight on.
            body.successors[vaddr].add(end)
            body.states[end] = state
            self.came_from.setdefault(end, vaddr)
            vaddr = end
        if flow is Flow.CALL:
            self._call(instruction, state)
        elif flow is Flow.JUMP and target is not None:
            self._jump(instruction, target, state)
        elif flow in (Flow.BRANCH, Flow.LOOP) and target is not None:
            self._jump(instruction, target, self.arch.taken(instruction, state, jumped=True))
            self._go_on(instruction, self.arch.taken(instruction, state, jumped=False))
        elif flow is Flow.INDIRECT:
            self._indirect(instruction, state)
        elif flow is Flow.FOREIGN:
            self.body.fail(f"has an instruction that is not followed, {instruction.mnemonic}, at {self.body.place(vaddr)}")

    def _call(self, instruction: Instruction, state: State) -> None:
        target = instruction.target
        if target is not None and target != self.body.function.vaddr and self._inside(target):
            self.body.fail(f"calls into its own middle at {self.body.place(instruction.address)}")
            return
        after = self.arch.after(instruction, state, go=self.go)
        pad = self.trail.unwinder.pad(instruction)
        if pad is not None:
            self._land(instruction, pad, self.trail.unwinder.landed(instruction, pad, after))
        if instruction.address in self.known_never or not self._inside(instruction.end):
            return
        if target is not None and self.program.never_returns(target):
            return
        self.came_from.setdefault(instruction.end, instruction.address)
        self.after_calls.append((instruction.end, after, instruction.address))

    def _land(self, instruction: Instruction, pad: Vaddr, state: State) -> None:
        """The way that an exception takes from an instruction to its landing pad, which may lie in a part of the function."""
        if not self._inside(pad):
            destination = outside.part(self.program, self.body.function, pad)
            if destination.region is None:
                self.body.fail(f"catches exceptions at {pad:#x}, and {destination.reason}")
                return
            self._add(destination.region)
        self.body.successors[instruction.address].add(pad)
        self._arrive(pad, state)

    def _land_elsewhere(self) -> bool:
        """Goes on at landing pads that no call leads to: of instructions that trap (-fnon-call-exceptions)."""
        found = False
        for landing in self.trail.unwinder.landings:
            if landing.pad in self.body.states:
                continue
            for address in range(landing.start, min(landing.end, landing.start + _TRAPPING_BYTES)):
                instruction = self.body.instructions.get(address)
                if instruction is not None:
                    state = self.arch.after_call(self.body.states[address], go=self.go)
                    self._land(instruction, landing.pad, self.trail.unwinder.landed(instruction, landing.pad, state))
                    found = landing.pad in self.body.states
        return found

    def _indirect(self, instruction: Instruction, state: State) -> None:
        table, slot = self.arch.jump_operand(instruction, state)
        if slot is not None:
            name = self.program.file.slots.get(slot, "")
            self.trail.leaving[instruction.address] = (Vaddr(0), Destination(Verdict.TAIL, name=name))
            return
        if table is None or not self._is_table(table):
            if instruction.address not in self.trail.tables:
                self.trail.leaving[instruction.address] = (Vaddr(0), Destination(Verdict.TAIL))
            return
        self.trail.leaving.pop(instruction.address, None)
        length = self.arch.bound(self._path_to(instruction))
        targets = jumptables.read(self.program, table, length, lambda place: self._may_go(place, state))
        if not targets:
            self.body.fail(f"has a jump table that is not understood at {self.body.place(instruction.address)}")
        self.trail.tables.add(instruction.address)
        self.trail.table_targets.update(targets)
        for target in targets:
            if self._inside(target) or not self._is_end(target):
                self._jump(instruction, target, state)  # else: the empty block of a case that cannot be

    def _may_go(self, target: Vaddr, state: State) -> bool:
        """Whether an element of a jump table is a place in this function, or in a part of it."""
        for region in self.body.regions:
            if target in region:
                return not region.exact or target in self.trail.rows
        if self._is_end(target):
            return True
        if not self.program.is_code(target):
            return False
        destination = outside.resolve(self.program, self.body.function, target, self.arch.stack(state))
        return destination.verdict is Verdict.PART

    def _is_table(self, table: Value) -> bool:
        """Whether it is a jump table and not one of functions, which a tail call goes through."""
        if table.kind is ValueKind.POINTER:
            return self._inside(self.program.file.pointer(table.number))
        return table.kind is ValueKind.RELATIVE_TARGET

    def _path_to(self, instruction: Instruction) -> list[tuple[Instruction, bool]]:
        """A way that led to ``instruction``, backwards, each with whether it was left by jumping."""
        path = [(instruction, False)]
        at: int = instruction.address
        while len(path) < _PATH:
            before = self.body.instructions.get(self.came_from.get(at, -1))
            if before is None:
                break
            path.append((before, before.end != at))
            at = before.address
        return path

    def _resume(self) -> None:
        """After a recovered panic, Go's runtime lets a function go on at its first call of runtime.deferreturn.

        The compiler writes one more for that purpose alone, which nothing reaches. All have the frame of all other calls.
        """
        places = [
            row.address
            for row in self.trail.rows.values()
            if row.flow is Flow.CALL
            and row.target is not None
            and self.program.symbols.name_at(row.target) == "runtime.deferreturn"
        ]
        if self.resumes_at is not None:
            places.append(self.resumes_at)
        places = [place for place in places if place not in self.body.states]
        if not places:
            return
        calls = [a for a, instruction in self.body.instructions.items() if instruction.flow is Flow.CALL]
        frames = [state for state in map(self.body.states.__getitem__, calls) if self.arch.stack(state) != 0]
        if len({self.arch.stack(state) for state in frames}) != 1 or not all(map(self._inside, places)):
            self.body.fail("recovers from panics, and its frame is not understood")
            return
        joined = frames[0]
        for state in frames:
            joined = _join(joined, state)
        for place in places:
            self._arrive(place, joined)

    def _decide(self) -> bool:
        """Settles one jump out that references have to decide; False when there is none left."""
        for address, (target, destination) in self.trail.leaving.items():
            if destination.verdict is Verdict.UNDECIDED and destination.region is not None:
                if self._inside(target):
                    decided = Destination(Verdict.PART)
                else:
                    decided = outside.decide(self.program, self.body.regions, target, destination.region)
                if decided.verdict is Verdict.PART:
                    if decided.region is not None:
                        self._add(decided.region)
                    del self.trail.leaving[address]
                    self.pending.append(Vaddr(address))
                else:
                    self.trail.leaving[address] = (target, decided)
                return True
        return False


def _join(one: State, other: State) -> State:
    """What is known where two ways meet."""
    return tuple(left if left == right else None for left, right in zip(one, other, strict=True))

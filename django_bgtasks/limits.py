"""
Concurrency and rate limits by key, exact over all workers.

Workers ask here for what they have claimed: admit() says what may run and
parks the rest, WAITING at its key, outside of what a claim reads. What waits
comes back by refill(), from a worker that has just finished one of the key or
knows when the next start is free; sweep() is for when no worker does.

Whoever counts holds the lock of the key's row, keys in order, so that counts
are exact and nobody waits in a circle. Limits are counted from live claims
(after GoodJob): there is no counter that a crash could leave wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Exists, OuterRef, Q

from . import transitions
from .db import ClaimedTask, ClaimRequest, operations_for
from .ids import new_id
from .models.limit import LimitHold, LimitKey, LimitWait
from .models.queued import QueuedTask
from .states import LiveStatus

#: Starts of a rate are given away so far ahead, in seconds.
HORIZON = 0.06
#: Starts are this much further apart than the rate says: a start is some milliseconds
#: late now and then, and a second must not see one more for it.
MARGIN = 1.02
#: What a row says while it waits. Not at which key, which is made of arguments.
WAITS = "Waits at a limit."
#: Keys that one sweep looks at, and waiting tasks of each.
SWEEP_KEYS, SWEEP_TASKS = 200, 50


@dataclass(frozen=True, slots=True)
class Candidate:
    """A task that asks for admission; concurrency and rate as the mark() of policies' classes."""

    id: str
    claim_id: str
    queue_name: str
    rank: int
    concurrency: tuple[str, str, int] | None
    rate: tuple[str, str, float, int] | None

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Digest and text of each of its keys."""
        return [(mark[0], mark[1]) for mark in (self.concurrency, self.rate) if mark]


def candidate(
    task_id: str, claim_id: str, queue_name: str, rank: int, options: Any
) -> Candidate | None:
    """Return the Candidate of a row by its options, None if it has no limit."""
    marks = (options or {}).get("marks") or {}
    concurrency, rate = marks.get("concurrency"), marks.get("rate")
    if not concurrency and not rate:
        return None
    return Candidate(
        task_id,
        claim_id,
        queue_name,
        rank,
        tuple(concurrency) if concurrency else None,
        tuple(rate) if rate else None,
    )


@dataclass(slots=True)
class Admission:
    """
    What may run, by id: in how many seconds. What was parked: at which digest.

    room_at says in how many seconds a rate has its next free start; a full
    concurrency key has none: its next end makes room. places are those that
    tasks hold at concurrency keys, chains the tasks that may follow in them,
    one after the other.
    """

    starts: dict[str, float] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    chains: dict[str, list[str]] = field(default_factory=dict)
    parked: dict[str, str] = field(default_factory=dict)
    room_at: dict[str, float] = field(default_factory=dict)
    claimed: list[ClaimedTask] = field(default_factory=list)


class _Ledger:
    """The keys of some candidates, locked; decides and writes down."""

    def __init__(self, alias: str, candidates: Iterable[Candidate], *, wait: bool = True) -> None:
        self.alias = alias
        operations = operations_for(alias)
        texts = {digest: text for c in candidates for digest, text in c.keys}
        features = operations.connection.features
        locked = LimitKey.objects.using(alias).select_for_update(
            skip_locked=not wait and features.has_select_for_update_skip_locked
        )
        rows = (
            locked.filter(pk__in=list(texts))
            .annotate(now=operations.now_expression(None))
            .order_by("pk")
        )
        self.keys = {row.pk: row for row in rows}
        missing = sorted(set(texts) - set(self.keys))
        if missing and wait:
            now = operations.now()
            LimitKey.objects.using(alias).bulk_create(
                [LimitKey(digest=d, text=texts[d], used_at=now) for d in missing],
                ignore_conflicts=True,
            )
            self.keys = {row.pk: row for row in rows.all()}
        self.now: datetime = next((row.now for row in self.keys.values()), None) or operations.now()
        self._counted = self._count({c.concurrency[0] for c in candidates if c.concurrency})
        self.begin()

    def begin(self) -> None:
        """Forget what ask() gave away."""
        self.counts = dict(self._counted)
        self.next_at: dict[str, datetime] = {
            pk: row.next_at for pk, row in self.keys.items() if row.next_at is not None
        }
        self.holds: list[LimitHold] = []
        self.room_at: dict[str, float] = {}

    def _count(self, digests: set[str]) -> dict[str, int]:
        if not digests:
            return {}
        running = QueuedTask.objects.using(self.alias).filter(
            pk=OuterRef("task_id"), claim_id=OuterRef("claim_id"), status=LiveStatus.RUNNING
        )
        held = LimitHold.objects.using(self.alias).filter(Exists(running), digest__in=list(digests))
        return dict(held.values_list("digest").annotate(count=Count("pk")).order_by())

    def ask(self, asking: Candidate) -> tuple[float | None, str]:
        """
        Return in how many seconds a task may start, or None and the digest that refuses.

        A start that is given away is written down by save().
        """
        if any(digest not in self.keys for digest, _ in asking.keys):
            return None, asking.keys[0][0]  # Others are at it.
        if asking.concurrency is not None:
            digest, _, most = asking.concurrency
            if self.counts.get(digest, 0) >= most:
                return None, digest
        start = self.now
        if asking.rate is not None:
            digest, _, every, burst = asking.rate
            every *= MARGIN
            due = self.next_at.get(digest, self.now)
            start = max(self.now, due - timedelta(seconds=every * (burst - 1)))
            ahead = (start - self.now).total_seconds()
            if ahead > HORIZON:
                self.room_at[digest] = ahead
                return None, digest
            self.next_at[digest] = max(due, start) + timedelta(seconds=every)
        if asking.concurrency is not None:
            self.counts[digest_of(asking)] = self.counts.get(digest_of(asking), 0) + 1
            self.holds.append(
                LimitHold(
                    id=new_id(),
                    digest=digest_of(asking),
                    task_id=asking.id,
                    claim_id=asking.claim_id,
                )
            )
        return (start - self.now).total_seconds(), ""

    def next_start(self, rate: tuple[str, str, float, int]) -> float:
        """Return in how many seconds the next start of a rate is free."""
        digest, _, every, burst = rate
        due = self.next_at.get(digest, self.now) - timedelta(seconds=every * MARGIN * (burst - 1))
        return max(0.0, (due - self.now).total_seconds())

    def save(self) -> None:
        """Write down what ask() gave away."""
        if self.holds:
            LimitHold.objects.using(self.alias).bulk_create(self.holds)
        for digest, moment in self.next_at.items():
            if self.keys[digest].next_at != moment:
                LimitKey.objects.using(self.alias).filter(pk=digest).update(
                    next_at=moment, used_at=self.now
                )


def digest_of(asking: Candidate) -> str:
    """Return the digest of the concurrency key."""
    assert asking.concurrency is not None
    return asking.concurrency[0]


def admit(alias: str, candidates: Sequence[Candidate]) -> Admission:
    """Say which of these claimed tasks may run; park the others at the key that refused."""
    operations = operations_for(alias)

    def unit() -> Admission:
        done = Admission()
        with operations.write():
            ledger = _Ledger(alias, candidates)
            waits, held = [], []
            for asking in candidates:
                start, refused = ledger.ask(asking)
                if start is not None:
                    done.starts[asking.id] = start
                    continue
                done.parked[asking.id] = refused
                waits.append(_wait(asking, refused))
                held.append((asking.id, asking.claim_id))
            ledger.save()
            done.places = {str(hold.task_id): str(hold.pk) for hold in ledger.holds}
            if waits:
                transitions.park(alias, waits, held, reason=WAITS)
            done.room_at = {
                c.rate[0]: ledger.next_start(c.rate) for c in candidates if c.rate is not None
            }
        return done

    return operations.retrying(unit)


def _wait(asking: Candidate, digest: str) -> LimitWait:
    return LimitWait(
        task_id=asking.id, digest=digest, queue_name=asking.queue_name, rank=asking.rank
    )


def refill(
    alias: str,
    digests: Sequence[str],
    request: ClaimRequest,
    *,
    any_but: bool = False,
    ended: Sequence[str] = (),
    chain: int = 0,
) -> Admission:
    """
    Claim up to request.limit tasks that wait at these keys and may run now.

    Of request.queues alone, with any_but of all others. ended are places that
    are free again. Up to chain more tasks are claimed for each place, to run
    one after the other: a short task costs no more than its share of this.
    room_at is given for a rate; without it nothing waits, or an end makes room.
    """
    served = Q(queue_name__in=list(request.queues))
    wanted = max(1, request.limit)
    asking = _waiting(alias, digests, ~served if any_but else served, wanted * (1 + chain))
    if not asking:
        let_go(alias, ended)
        return Admission()
    operations = operations_for(alias)

    def unit() -> Admission:
        done = Admission()
        with operations.write():
            ledger = _Ledger(alias, asking)
            may: list[Candidate] = []
            for c in asking:
                if len(may) < wanted and ledger.ask(c)[0] is not None:
                    may.append(c)
            done.room_at = dict(ledger.room_at)
            if may:
                followers = _followers(may, asking, chain)
                request.candidates = [c.id for c in may] + [
                    c.id for line in followers.values() for c in line
                ]
                request.limit = len(request.candidates)
                done.claimed = transitions.hand_over(alias, request)
                taken = {task.id for task in done.claimed}
                # Again, for those alone that were still there.
                ledger.begin()
                for c in may:
                    line = [f.id for f in followers[c.id] if f.id in taken]
                    first = c.id if c.id in taken else (line.pop(0) if line else None)
                    if first is None:
                        continue
                    mine = replace(c, id=first, claim_id=request.claim_id)
                    done.starts[first] = ledger.ask(mine)[0] or 0.0
                    if c.concurrency is not None:
                        hold = ledger.holds[-1]
                        done.places[first] = str(hold.pk)
                        done.chains[first] = line
                        # As long as the last of them is not through, the place is taken.
                        hold.task_id = line[-1] if line else first
                ledger.save()
                for c in may:
                    if c.rate is not None:
                        done.room_at[c.rate[0]] = ledger.next_start(c.rate)
            let_go(alias, ended)
        return done

    return operations.retrying(unit)


def _followers(
    may: Sequence[Candidate], asking: Sequence[Candidate], chain: int
) -> dict[str, list[Candidate]]:
    """Share the others out among the places of those that may run, up to chain each."""
    chosen = {c.id for c in may}
    rest = [c for c in asking if c.id not in chosen and c.rate is None]
    lines: dict[str, list[Candidate]] = {c.id: [] for c in may}
    for c in may:
        if c.concurrency is None or c.rate is not None:
            continue
        mine = [r for r in rest if r.concurrency and r.concurrency[0] == c.concurrency[0]]
        lines[c.id] = mine[:chain]
        rest = [r for r in rest if r not in lines[c.id]]
    return lines


def extend(
    alias: str, digest: str, place: str, request: ClaimRequest, *, any_but: bool = False
) -> list[ClaimedTask]:
    """Claim up to request.limit more tasks that wait at a key, to follow in a place there."""
    served = Q(queue_name__in=list(request.queues))
    waiting = _waiting(alias, [digest], ~served if any_but else served, request.limit)
    asking = [c for c in waiting if c.rate is None]
    if not asking:
        return []
    operations = operations_for(alias)

    def unit() -> list[ClaimedTask]:
        with operations.write():
            LimitKey.objects.using(alias).select_for_update().filter(pk=digest).first()
            request.candidates = [c.id for c in asking]
            claimed = transitions.hand_over(alias, request)
            if claimed:
                move_place(alias, place, (claimed[-1].id, request.claim_id))
            return claimed

    return operations.retrying(unit)


def move_place(alias: str, place: str, last: tuple[str, str]) -> None:
    """Note which task, and claim, is the last to run in a place."""
    LimitHold.objects.using(alias).filter(pk=place).update(task_id=last[0], claim_id=last[1])


def _waiting(alias: str, digests: Iterable[str], served: Q, limit: int) -> list[Candidate]:
    """Return the first tasks that wait at each of digests, without a lock."""
    ids: list[Any] = []
    for digest in digests:
        waits = LimitWait.objects.using(alias).filter(served, digest=digest)
        ids += waits.order_by("rank", "task_id").values_list("task_id", flat=True)[:limit]
    if not ids:
        return []
    rows = (
        QueuedTask.objects.using(alias)
        .filter(pk__in=ids, status=LiveStatus.WAITING)
        .values_list("pk", "queue_name", "rank", "options")
    )
    found = {row[0]: row for row in rows}
    gone = [pk for pk in ids if pk not in found]
    if gone:
        # Cancelled, or replaced, while they waited. Asked again: it may be parked anew.
        waiting = QueuedTask.objects.using(alias).filter(
            pk=OuterRef("task_id"), status=LiveStatus.WAITING
        )
        LimitWait.objects.using(alias).filter(~Exists(waiting), task_id__in=gone).delete()
    made = (
        candidate(str(pk), "", queue, rank, options)
        for pk, queue, rank, options in (found[pk] for pk in ids if pk in found)
    )
    return [c for c in made if c is not None]


def let_go(alias: str, places: Sequence[str]) -> None:
    """Forget places whose tasks have ended. They don't count any more, in any case."""
    if places:
        LimitHold.objects.using(alias).filter(pk__in=list(places))._raw_delete(alias)


def park_blocked(alias: str, queue: str, digests: Iterable[str], scan: int) -> int:
    """
    Park the READY tasks of full keys among the first scan of a queue; return how many.

    So that thousands of them at the head of a queue are moved out of the way by
    a few statements, and not one claim at a time.
    """
    head = (
        QueuedTask.objects.using(alias)
        .filter(status=LiveStatus.READY, queue_name=queue)
        .order_by("rank", "fair_key", "id")
        .values_list("pk", "limit_key")[:scan]
    )
    full = set(digests)
    ids = sorted(pk for pk, key in head if key in full)
    if not ids:
        return 0
    operations = operations_for(alias)

    def unit() -> int:
        with operations.write():
            rows = list(
                QueuedTask.objects.using(alias)
                .select_for_update(
                    skip_locked=operations.connection.features.has_select_for_update_skip_locked
                )
                .filter(pk__in=ids, status=LiveStatus.READY)
                .values_list("pk", "limit_key", "rank")
            )
            waits = [
                LimitWait(task_id=pk, digest=key, queue_name=queue, rank=rank)
                for pk, key, rank in rows
            ]
            transitions.park_ready(alias, waits, reason=WAITS)
            return len(waits)

    return operations.retrying(unit)


def with_waits(alias: str, digests: Iterable[str]) -> set[str]:
    """Return those of digests at which tasks wait."""
    waits = LimitWait.objects.using(alias)
    return {digest for digest in set(digests) if waits.filter(digest=digest).exists()}


def sweep(
    alias: str, queues: Sequence[str], after: str = "", *, any_but: bool = False
) -> tuple[set[str], str]:
    """
    Make READY what waits at keys that have room, and that no worker looks after.

    In queues, with any_but in all others; up to SWEEP_KEYS keys that follow the
    digest after. Return the queues that have work now, and the last digest, ""
    when all were seen.
    """
    digests: list[str] = []
    last = after
    while len(digests) < SWEEP_KEYS:
        following = (
            LimitWait.objects.using(alias)
            .filter(digest__gt=last)
            .order_by("digest")
            .values_list("digest", flat=True)
            .first()
        )
        if following is None:
            last = ""
            break
        digests.append(following)
        last = following
    if not digests:
        return set(), ""
    return set_free(alias, digests, queues, any_but=any_but), last


def set_free(
    alias: str, digests: Sequence[str], queues: Sequence[str], *, any_but: bool = False
) -> set[str]:
    """
    Make READY what waits at these keys, as much as they have room for.

    In queues, with any_but in all others. Return the queues that have work now.
    """
    served = Q(queue_name__in=list(queues))
    asking = _waiting(alias, digests, ~served if any_but else served, SWEEP_TASKS)
    if not asking:
        return set()
    operations = operations_for(alias)

    def unit() -> set[str]:
        with operations.write():
            ledger = _Ledger(alias, asking, wait=False)
            free = [c for c in asking if ledger.ask(c)[0] is not None]
            # Nothing is saved: they are admitted, or not, when they are claimed.
            transitions.unpark(alias, [c.id for c in free])
            return {c.queue_name for c in free}

    return operations.retrying(unit)


def forget(alias: str, before: datetime, limit: int) -> None:
    """Delete holds that don't count, and keys that were not used since before."""
    running = QueuedTask.objects.using(alias).filter(
        pk=OuterRef("task_id"), claim_id=OuterRef("claim_id"), status=LiveStatus.RUNNING
    )
    holds = LimitHold.objects.using(alias)
    stale = list(holds.filter(~Exists(running)).values_list("pk", flat=True)[:limit])
    if stale:
        holds.filter(pk__in=stale).filter(~Exists(running)).delete()
    keys = LimitKey.objects.using(alias)
    old = list(keys.filter(used_at__lt=before).values_list("pk", flat=True)[:limit])
    for digest in old:
        if not holds.filter(digest=digest).exists() and not with_waits(alias, [digest]):
            keys.filter(pk=digest, used_at__lt=before).delete()

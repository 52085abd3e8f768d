"""Guards the cascade against inputs made to escalate: tokens and an alarm, for each client and for all together.

Requests are counted, not seconds: what an attack may cost is stated per request, and no clock can be turned back.
An inference of a request's row counts as one request here.
"""

from collections import OrderedDict
from dataclasses import dataclass
from math import ceil, log
from typing import Dict, Mapping, Tuple

# A stream is normal while it escalates at most so much more often than on the calibration images: their sampling
# error is a few percent, the rest is for harmless drift.
ALLOWANCE = 0.25
# What an attack may cost above the static policy. Every token is worth one inference of `then`, so over any 200
# requests the first 18 and the trickle's 2 make 10 %.
BURST = 18.0
TRICKLE = 0.01  # tokens for a request that got no cascade: so it is tried again after all
CLIENT_FALSE_ALARMS = 1e-5  # of a client, in a request of normal traffic
FALSE_ALARMS = 1e-6  # of all clients together
# The alarm looks for streams nine tenths of the way from normal to always escalating; what tokens stop is slower.
ATTACK = 0.9
PAUSE = 200  # requests without a cascade after an alarm; twice as many after each one that follows upon a try
LONGEST_PAUSE = 64 * PAUSE
TRY = 0.1  # chance that a normal stream is mistaken again when the cascade is tried after a pause
LEAST_SHARE = 0.01  # a rule that hardly ever escalated may do so now and then
CLIENTS = 1024  # remembered; the one not seen for longest is forgotten


@dataclass(frozen=True)
class GuardState:
    """What the guard holds now, for logs and metrics.

    Attributes:
        alarm: all clients are without a cascade.
        tokens: escalations that all clients together may still take.
        alarms: how often it was raised, of all and of single clients.
        clients, paused_clients: remembered, and how many of them are without a cascade.
    """

    alarm: bool
    tokens: float
    alarms: int
    clients: int
    paused_clients: int


class Account:
    """Tokens, suspicion and pauses of one client, or of all together.

    Args:
        false_alarms: chance of an alarm in a request of normal traffic; at most so, whatever came before.
    """

    __slots__ = ("_pause", "_suspicion", "_threshold", "alarms", "left", "tokens")

    def __init__(self, false_alarms: float) -> None:
        self._threshold = -log(false_alarms)  # Lorden 1971: a CUSUM of log likelihoods needs e^threshold requests
        self._suspicion = 0.0
        self._pause = PAUSE
        self.tokens = BURST
        self.left = 0
        self.alarms = 0

    def allows(self, rows: int) -> bool:
        """Whether so many rows may be cascaded; a refusal counts as their static service."""
        if self.left == 0 and self.tokens >= rows:
            return True
        self.tokens = min(BURST, self.tokens + TRICKLE * rows)
        if self.left > 0:
            self.left = max(0, self.left - rows)
            if self.left == 0:  # a few escalations in a row are an alarm again
                self._suspicion = max(0.0, self._threshold + log(TRY))
        return False

    def observe(self, escalated: bool, refill: float, more: float, less: float) -> None:
        """Count a row that was cascaded, see `Guard.observe`; `more` and `less` are log likelihood ratios."""
        self.tokens = min(BURST, self.tokens + refill - (1.0 if escalated else 0.0))
        if self.left > 0:  # the rest of the batch that raised the alarm says nothing new
            return
        self._suspicion += more if escalated else less
        if self._suspicion <= 0.0:
            self._suspicion = 0.0
            self._pause = PAUSE
        elif self._suspicion >= self._threshold:
            self._suspicion = 0.0
            self.left = self._pause
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
            self.alarms += 1


class Guard:
    """Says whether a request may be cascaded, from what earlier ones came to.

    A refused request runs the static policy, so that at worst there is no cascade: over any 200 requests or more
    the mean cost stays within 1.1 of the static policy's, whatever is sent.

    Args:
        clients: how many are remembered.
    """

    def __init__(self, clients: int = CLIENTS) -> None:
        self._most = clients
        self._whole = Account(FALSE_ALARMS)
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._ratios: Dict[float, Tuple[float, float, float]] = {}
        self._client_alarms = 0

    @property
    def alarm(self) -> bool:
        """Whether no client is cascaded for a while."""
        return self._whole.left > 0

    @property
    def alarms(self) -> int:
        """How often the alarm was raised, of all and of single clients."""
        return self._whole.alarms + self._client_alarms

    @property
    def state(self) -> GuardState:
        """For logs and metrics."""
        paused = sum(account.left > 0 for account in self._accounts.values())
        return GuardState(self.alarm, self._whole.tokens, self.alarms, len(self._accounts), paused)

    def allows(self, client: str, rows: int = 1) -> bool:
        """Whether a request may be cascaded; ask only where it would be, because a refusal counts.

        Args:
            client: whom escalations are charged to.
            rows: of the request; more than `BURST` never may.
        """
        return self.allows_all({client: rows})

    def allows_all(self, asked: Mapping[str, int]) -> bool:
        """Whether a batch of several clients' requests may be cascaded, all of it or nothing.

        A refusal counts once for each client and once for all together, as their static service. A batch of more rows
        than `BURST` is just not cascaded, and counts for nobody.

        Args:
            asked: how many of the batch's rows are whose.
        """
        rows = sum(asked.values())
        if rows > BURST:
            return False
        # Every account is asked, also after a refusal: it counts for each.
        answers = [self._whole.allows(rows)]
        answers += [self._account(client).allows(own) for client, own in asked.items()]
        return all(answers)

    def observe(self, client: str, escalated: bool, share: float, cost: float) -> None:
        """Count a row that was cascaded.

        Args:
            client: whom it is charged to.
            escalated: whether the second mode had to answer.
            share: how often the rule escalates, `Rule.escalated`.
            cost: of the first mode, as a share of the second one's now.
        """
        normal, more, less = self._ratio(share)
        # Beyond 1 - cost escalations the cascade costs more than it saves, so no stream may go on like that.
        refill = max(0.0, min(normal, 1.0 - cost))
        self._whole.observe(escalated, refill, more, less)
        account = self._account(client)
        before = account.alarms
        account.observe(escalated, refill, more, less)
        self._client_alarms += account.alarms - before

    def _account(self, client: str) -> Account:
        account = self._accounts.get(client)
        if account is None:
            account = self._accounts[client] = Account(CLIENT_FALSE_ALARMS)
            if len(self._accounts) > self._most:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(client)
        return account

    def _ratio(self, share: float) -> Tuple[float, float, float]:
        found = self._ratios.get(share)
        if found is None:
            if len(self._ratios) > self._most:  # a bundle has a few; nobody is to fill the memory with others
                self._ratios.clear()
            found = self._ratios[share] = ratios(share)
        return found


def ratios(share: float) -> Tuple[float, float, float]:
    """The most that is normal, and what a row that escalates, or does not, says for an attack (log likelihood ratios).

    Args:
        share: how often a rule escalates on its calibration images, 0-1.
    """
    normal = min(0.99, max(LEAST_SHARE, share) * (1.0 + ALLOWANCE))
    attack = normal + ATTACK * (1.0 - normal)
    return normal, log(attack / normal), log((1.0 - attack) / (1.0 - normal))


def requests_to_alarm(share: float, false_alarms: float = FALSE_ALARMS) -> int:
    """After how many requests a stream that always escalates raises the alarm.

    Args:
        share: how often the rule escalates on its calibration images; up to 0.58 it takes at most 50.
        false_alarms: as for `Account`.
    """
    return ceil(-log(false_alarms) / ratios(share)[1])

"""In plain words: why a mode answered, and why none did."""

CHOSEN = {
    "fits": "the most accurate allowed mode that fits",
    "degraded": "nothing fitted, and it is the fastest allowed mode",
    "pinned": "the request allowed this mode only",
    "energy": "a better mode would have taken too much energy",
    "thermal": "the device is throttled",
    "only-mode": "no other mode was allowed",
    "cascade": "the cascade's rule decided whether a better mode was needed",
    "guard": "the guard against escalations fell back to the static choice",
}
REFUSED = {
    "deadline-infeasible": "no allowed mode would have surely finished in time",
    "budget-impossible": "no allowed mode meets what was asked, even on an idle device",
    "energy-unavailable": "no allowed mode's energy is known",
    "queue-full": "too many requests waited",
    "not-ready": "no allowed mode was resident",
    "draining": "the server was shutting down",
    "deadline-exceeded": "its budget ended",
}

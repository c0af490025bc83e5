"""The host tuned for a recording: what of docs/tuning.md the program can do itself, one module for each idea.

``cpus`` pins to cores, ``priority`` asks the scheduler for precedence, ``memory`` locks and pre-faults,
``spin`` keeps the event loop awake, ``collector`` keeps the garbage collector out of the way. A host that
refuses is a TuningError. Not here: looking at the host (``check``), when it is applied (``capture``).
"""

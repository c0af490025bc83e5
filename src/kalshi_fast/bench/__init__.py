"""The benchmark suite: what is measured, on which frames, against whom. ``kalshi-fast bench`` runs it.

Everything runs side by side in one process tree, in interleaved rounds: each contender once, then each once
more, so that a slow minute of the machine meets all of them. Figures are medians with the least and the most.
Not here: long recordings (``benchmarks/endurance.py``), bytes stored (``benchmarks/test_storage.py``).
"""

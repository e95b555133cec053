"""The tok/s protocol: the speed of a pair over that of f16/f16, at depth, decided round by round.

:mod:`plan` says what is timed, :mod:`methods` how and which pairs together, by what fits into
memory; :mod:`timed_pairs` times them. :mod:`depth_sweep` visits the depths, with :mod:`in_turn` in
one process or with :mod:`bracket` one after another; :mod:`series` judges the rounds of one test,
:mod:`record` writes them down.
"""

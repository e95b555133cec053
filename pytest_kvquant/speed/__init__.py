"""The tok/s protocol: the speed of a pair over that of f16/f16, at depth, decided round by round.

:mod:`plan` says what is timed, :mod:`methods` how, by what fits into memory; :mod:`depth_sweep`
visits the depths, with :mod:`streams` in turn or with :mod:`bracket` one after another;
:mod:`series` judges the rounds of one test, :mod:`record` writes them down.
"""

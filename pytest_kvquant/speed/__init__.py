"""The tok/s protocol: the speed of a pair over that of f16/f16, at depth, decided round by round.

:mod:`plan` says what is timed, :mod:`room` how, by what fits into memory; :mod:`climb` visits the
depths, with :mod:`lanes` in turn or with :mod:`bracket` one after another; :mod:`series` judges the
rounds of one test, :mod:`record` writes them down.
"""

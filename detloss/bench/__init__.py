"""`detloss bench`: detloss against the packages that people use instead, on the machine at hand.

    cases/        what is computed, on how much, and by which packages
    measure.py    two of them timed in turns, before and after the cure of a bad processor state
    process.py    the fresh process in which that happens
    report.py     running the cases, and the tables
    launches.py   what a GPU would have to do, counted on tensors without values: --device meta
    compiled.py   what PyTorch's compiler makes of it: --compiled
    scaling.py    time against size, as a picture: `detloss scaling`

Of every case each peer has processes of its own, in which it and detloss run on the same input in
turns, forward and backward; it reports medians, ratios and how far the results differ. The peak of
memory is taken in a fresh process for each of them. A peer that is not installed is left out.
"""

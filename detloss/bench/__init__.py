"""`detloss bench`: detloss against the packages that people use instead, on the machine at hand.

Of every case each peer has a process of its own, in which it and detloss run on the same input in
turns, forward and backward; it reports medians, ratios and how far the results differ. The peak of
memory is taken in a fresh process for each of them. A peer that is not installed is left out.
"""

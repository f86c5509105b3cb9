"""`detloss bench`: detloss against the packages that people use instead, on the machine at hand.

Every case runs detloss and its peers on the same input in the same process, in turns, forward and
backward, and reports medians, ratios and how far the results differ; the peak of memory is taken
in a fresh process each. A peer that is not installed is left out.
"""

"""Kernels in the frequency domain: transforms, shrinkage, shared centres, and the forms they take.

Source: Wang et al., "CNNpack", NIPS 2016, and TPAMI 41(10), 2019.
"""

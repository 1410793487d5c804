"""A byte-counting autograd: torch's operators with sizes in place of numbers.

Networks are written in it as their forward pass. A `Tensor` has a shape, a dtype and a `Storage` shared by its views; the
storage counts into the `Meter` when it is made and out of it when Python drops the last reference, so that the lifetime of a
variable in the network's code is its lifetime in the real one.
"""

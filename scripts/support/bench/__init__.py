"""What the gate costs on this machine, in CPU time, beside what a simple loop would cost.

A module measures one part and has one function, `measure(effort) -> Section`; `__main__` lists
them. Nothing here is checked against a clock by a test: figures depend on the machine.
"""

"""The laws that every part must keep, by role, on toy models small enough to enumerate every branch of randomness.

``python -m pytest --pyargs decodery.laws --part pkg.mod:Mine`` examines one part; without ``--part`` all that have a name
are examined, those of other distributions included. Each law is a plain function that raises ``LawBroken``.
"""

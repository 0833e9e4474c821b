"""The same tests in a transaction that is rolled back, and without one."""

import pytest

#: As TestCase does it, and as TransactionTestCase does.
IN_BOTH = pytest.mark.parametrize(
    "in_transaction",
    [
        pytest.param(True, marks=pytest.mark.django_db),
        pytest.param(False, marks=pytest.mark.django_db(transaction=True)),
    ],
    ids=["TestCase", "TransactionTestCase"],
)

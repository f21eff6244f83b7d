-- Run outside of the transaction, so that they can commit each piece. They may run again after a failure.
CALL fill_phases();
CALL fill_outcomes();

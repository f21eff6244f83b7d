-- Runs outside of the transaction, so that it can commit each piece. It may run again after a failure.
CALL fill_phases();

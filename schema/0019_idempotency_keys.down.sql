-- Lost: the answers to requests of the last day with an Idempotency-Key; a repeat is carried out again | SELECT count(*) FROM idempotency_keys
DROP TABLE idempotency_keys;

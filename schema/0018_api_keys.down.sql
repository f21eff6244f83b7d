-- Lost: API keys, whose clients are not served any more | SELECT count(*) FROM api_keys WHERE revoked_at IS NULL
DROP TABLE api_keys;

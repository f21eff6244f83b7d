-- The context of the request or the planner's tick that made a message, as W3C Trace Context writes it. Null: nobody
-- traced that.
ALTER TABLE message_logs ADD COLUMN traceparent text;

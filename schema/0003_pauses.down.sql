-- Lost: message types that are paused: they are sent again | SELECT count(*) FROM pauses WHERE is_paused
DROP TABLE pauses;

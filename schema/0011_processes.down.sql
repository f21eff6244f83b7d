-- Lost: what processes have reported, which they report again | SELECT count(*) FROM processes
DROP TABLE processes;

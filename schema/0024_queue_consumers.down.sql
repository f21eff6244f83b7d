-- Lost: which consumers live, of which they tell again | SELECT count(*) FROM queue_consumers
DROP TABLE queue_consumers;

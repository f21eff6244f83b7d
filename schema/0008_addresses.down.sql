-- Nothing to take back: the program before reads and sends addresses of this form as well.
SELECT 1;

$LORAFOLD help jobs

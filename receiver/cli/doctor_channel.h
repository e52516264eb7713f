/* The doctor's check of the data channel, with the agent that was placed for the upload's check. */
#ifndef RECEIVER_CLI_DOCTOR_CHANNEL_H
#define RECEIVER_CLI_DOCTOR_CHANNEL_H

struct app;
struct doctor_report;
struct host;
struct placed;

/*
 * Start the agent, have it dial back as a run would, and add a line on the SSH channel and one on
 * TCP. context is the struct app whose options count.
 */
void doctor_try_channel(void *context, struct host *h, struct placed *agent,
                        struct doctor_report *report);

#endif

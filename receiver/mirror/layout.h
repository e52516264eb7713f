/* Names of the files of a mirror (FORMAT.md 1). */
#ifndef RECEIVER_MIRROR_LAYOUT_H
#define RECEIVER_MIRROR_LAYOUT_H

#define LAYOUT_STORE ".vmferry"
#define LAYOUT_DIR_LOCK ".vmferry-lock"
#define LAYOUT_CONFIG "config"
#define LAYOUT_INTERRUPTED "REFRESH-INTERRUPTED"
#define LAYOUT_PART_SUFFIX ".part" /* of ".NAME.part", where a first mirror grows */
#define LAYOUT_IDENTITY "identity"
#define LAYOUT_LOCK "lock"
#define LAYOUT_RUN_LOCK "run-lock"
#define LAYOUT_COMMIT "commit"
#define LAYOUT_MOVED "commit-moved"
#define LAYOUT_CONFIG_STAGED "config-staged"
#define LAYOUT_SCRATCH "scratch"
#define LAYOUT_VERIFIED "verified"

enum { LAYOUT_NAME_ROOM = 64 };

/* snprintf into a name of LAYOUT_NAME_ROOM bytes; all formats here fit by construction. */
void layout_name(char out[LAYOUT_NAME_ROOM], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif

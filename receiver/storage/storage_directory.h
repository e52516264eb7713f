/*
 * Objects as files below one folder, a name's slashes as subfolders.  Files appear by
 * receiver/base/publish.h; locks are files in `locks/`, made once and never removed:
 * `locks/NAME` is the lock itself, `locks/NAME.wait` is held by who waits to hold it exclusively,
 * and asked for by every new taker first, so that the kernel drops that flag with its process too.
 *
 * The folder is opened once and everything happens below that descriptor: a file system that is
 * unmounted or exchanged meanwhile is never taken for an empty repository, nor filled by mistake.
 */
#ifndef RECEIVER_STORAGE_STORAGE_DIRECTORY_H
#define RECEIVER_STORAGE_STORAGE_DIRECTORY_H

struct err;
struct storage;

/*
 * Open the folder at path, which must be there.  0, or -1: ERR_NOT_FOUND, ERR_USAGE (no folder),
 * ERR_SYSTEM.  It is not looked at what is in it.
 */
int storage_directory_open(struct storage **out, const char *path, struct err *e);

/*
 * The same for a new repository: makes the folder where only its last component is missing, refuses
 * one that is not empty (ERR_REFUSED), and tries there what is relied on: exclusive create, rename
 * that replaces nothing, fsync of folders, locks that conflict, long names, large offsets.
 * ERR_UNSUPPORTED names what does not work.
 */
int storage_directory_create(struct storage **out, const char *path, struct err *e);

#endif

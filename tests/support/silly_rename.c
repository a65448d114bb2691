/* NFS in one process, by LD_PRELOAD: its client renames a file that is open to `.nfs…` ("silly rename") where it is
   removed, or replaced by a rename, and refuses to remove it under that name. Unlike NFS, this file stays when it is
   closed, as after a crash of the client. Each renaming is a line of the error output. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_open(const struct stat *file)
{
    for (int descriptor = 3; descriptor < 512; descriptor++) {
        struct stat one;
        if (fstat(descriptor, &one) == 0 && one.st_dev == file->st_dev && one.st_ino == file->st_ino)
            return 1;
    }
    return 0;
}

/* Return 1 for a file that was renamed, -1 for one that has such a name already, 0 for one that is not open. */
static int silly(int folder, const char *path)
{
    struct stat file;
    char name[4200] = "";
    const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
    if (fstatat(folder, path, &file, AT_SYMLINK_NOFOLLOW) || !S_ISREG(file.st_mode) || !is_open(&file))
        return 0;
    if (strncmp(last, ".nfs", 4) == 0) {
        errno = EBUSY;
        return -1;
    }
    snprintf(name, sizeof name, "%.*s.nfs%016lx", (int)(last - path), path, (unsigned long)file.st_ino);
    fprintf(stderr, "silly rename of %s\n", last);
    return renameat(folder, path, folder, name) == 0 ? 1 : 0;
}

int unlinkat(int folder, const char *path, int flags)
{
    int (*next)(int, const char *, int) = dlsym(RTLD_NEXT, "unlinkat");
    int done = flags & AT_REMOVEDIR ? 0 : silly(folder, path);
    return done ? (done > 0 ? 0 : -1) : next(folder, path, flags);
}

int unlink(const char *path)
{
    int (*next)(const char *) = dlsym(RTLD_NEXT, "unlink");
    int done = silly(AT_FDCWD, path);
    return done ? (done > 0 ? 0 : -1) : next(path);
}

int rename(const char *from, const char *to)
{
    int (*next)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    silly(AT_FDCWD, to);
    return next(from, to);
}

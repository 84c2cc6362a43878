/*
 * A disk that fails on one file, the local file cache's. The file that STRATA_TEST_FAULT names says how: none, short-read, short-write,
 * read-error, write-error, no-space. Loaded before the C library; all other files are read and written as ever.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOME 1000

typedef ssize_t (*ReadAt) (int, void *, size_t, off_t);
typedef ssize_t (*WriteAt) (int, const void *, size_t, off_t);

static int
is_the_cache(int fd)
{
	static const char ending[] = "/cache/pages";
	char		link[64];
	char		name[4096];
	ssize_t		length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, name, sizeof(name) - 1);
	if (length < (ssize_t) strlen(ending))
		return 0;
	name[length] = 0;
	return strcmp(name + length - strlen(ending), ending) == 0;
}

static int
fault_is(const char *wanted)
{
	const char *path = getenv("STRATA_TEST_FAULT");
	char		fault[32] = {0};
	int			file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (file < 0)
		return 0;
	if (read(file, fault, sizeof(fault) - 1) < 0)
		fault[0] = 0;
	close(file);
	return strcmp(fault, wanted) == 0;
}

static ssize_t
read_at(const char *real, int fd, void *to, size_t count, off_t at)
{
	if (is_the_cache(fd))
	{
		if (fault_is("read-error"))
		{
			errno = EIO;
			return -1;
		}
		if (count > SOME && fault_is("short-read"))
			count = SOME;
	}
	return ((ReadAt) dlsym(RTLD_NEXT, real)) (fd, to, count, at);
}

static ssize_t
write_at(const char *real, int fd, const void *from, size_t count, off_t at)
{
	if (is_the_cache(fd))
	{
		if (fault_is("write-error") || fault_is("no-space"))
		{
			errno = fault_is("no-space") ? ENOSPC : EIO;
			return -1;
		}
		if (count > SOME && fault_is("short-write"))
			count = SOME;
	}
	return ((WriteAt) dlsym(RTLD_NEXT, real)) (fd, from, count, at);
}

ssize_t
pread(int fd, void *to, size_t count, off_t at)
{
	return read_at("pread", fd, to, count, at);
}

ssize_t
pread64(int fd, void *to, size_t count, off_t at)
{
	return read_at("pread64", fd, to, count, at);
}

ssize_t
pwrite(int fd, const void *from, size_t count, off_t at)
{
	return write_at("pwrite", fd, from, count, at);
}

ssize_t
pwrite64(int fd, const void *from, size_t count, off_t at)
{
	return write_at("pwrite64", fd, from, count, at);
}

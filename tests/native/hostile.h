/*
 * hostile.h: what the parts of the hostile plugin share.
 *
 * An attempt answers "ok:..." with its evidence, or "errno:NAME@step".  Being killed can only be seen
 * from outside, as can everything that matters: the answer is never believed by itself.
 */
#ifndef HOSTILE_H
#define HOSTILE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ANSWER_ROOM 4096

/* What the attempt achieved, ended by a NUL. */
static char answer[ANSWER_ROOM];

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(answer, sizeof answer, format, arguments);
    va_end(arguments);
}

/* The name of an error number; a table of our own, so that no newer libc is needed. */
static const char *error_name(int number)
{
    static const struct {
        int number;
        const char *name;
    } names[] = {
        {EPERM, "EPERM"},           {ENOENT, "ENOENT"},
        {ESRCH, "ESRCH"},           {EINTR, "EINTR"},
        {EIO, "EIO"},               {ENXIO, "ENXIO"},
        {E2BIG, "E2BIG"},           {ENOEXEC, "ENOEXEC"},
        {EBADF, "EBADF"},           {ECHILD, "ECHILD"},
        {EAGAIN, "EAGAIN"},         {ENOMEM, "ENOMEM"},
        {EACCES, "EACCES"},         {EFAULT, "EFAULT"},
        {ENOTBLK, "ENOTBLK"},       {EBUSY, "EBUSY"},
        {EEXIST, "EEXIST"},         {EXDEV, "EXDEV"},
        {ENODEV, "ENODEV"},         {ENOTDIR, "ENOTDIR"},
        {EISDIR, "EISDIR"},         {EINVAL, "EINVAL"},
        {ENFILE, "ENFILE"},         {EMFILE, "EMFILE"},
        {ENOTTY, "ENOTTY"},         {ETXTBSY, "ETXTBSY"},
        {EFBIG, "EFBIG"},           {ENOSPC, "ENOSPC"},
        {ESPIPE, "ESPIPE"},         {EROFS, "EROFS"},
        {EMLINK, "EMLINK"},         {EPIPE, "EPIPE"},
        {ERANGE, "ERANGE"},         {ENOSYS, "ENOSYS"},
        {ELOOP, "ELOOP"},           {EUSERS, "EUSERS"},
        {ENOTSOCK, "ENOTSOCK"},     {EDESTADDRREQ, "EDESTADDRREQ"},
        {EMSGSIZE, "EMSGSIZE"},     {EPROTOTYPE, "EPROTOTYPE"},
        {ENOPROTOOPT, "ENOPROTOOPT"}, {EPROTONOSUPPORT, "EPROTONOSUPPORT"},
        {ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT"}, {EOPNOTSUPP, "EOPNOTSUPP"},
        {EAFNOSUPPORT, "EAFNOSUPPORT"}, {EADDRINUSE, "EADDRINUSE"},
        {EADDRNOTAVAIL, "EADDRNOTAVAIL"}, {ENETUNREACH, "ENETUNREACH"},
        {ECONNRESET, "ECONNRESET"}, {ENOBUFS, "ENOBUFS"},
        {EISCONN, "EISCONN"},       {ENOTCONN, "ENOTCONN"},
        {ETOOMANYREFS, "ETOOMANYREFS"}, {ETIMEDOUT, "ETIMEDOUT"},
        {ECONNREFUSED, "ECONNREFUSED"}, {ESTALE, "ESTALE"},
        {EDQUOT, "EDQUOT"},         {EOVERFLOW, "EOVERFLOW"},
        {ENOKEY, "ENOKEY"},         {ENODATA, "ENODATA"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].number == number)
            return names[i].name;
    return "OTHER";
}

static void say_errno(int step)
{
    say("errno:%s@%d", error_name(errno), step);
}

/* A plain kernel call; errno as usual. */
#define kernel(...) syscall(__VA_ARGS__)

#endif

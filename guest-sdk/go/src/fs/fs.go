// Package fs is files beneath the directories that the plugin was granted: [[fs]] in plugin.toml.
//
// A path is absolute within the plugin and begins with a mount, such as /data/report.txt. Package os
// reaches the same files, with the same grant; this one tells more: which mounts there are and how
// full, and why not, as a word.
package fs

import (
	iofs "io/fs"
	"iter"
	"time"

	"go.example/capwasm"
	"go.example/capwasm/internal/host"
	files "go.example/capwasm/internal/wit/capwasm_fs_files"

	types "go.bytecodealliance.org/pkg/wit/types"
)

var words = host.Words{
	files.Error_Denied:       capwasm.ErrDenied,
	files.Error_NotFound:     capwasm.ErrNotFound,
	files.Error_Exists:       capwasm.ErrExists,
	files.Error_NotDirectory: capwasm.ErrNotDirectory,
	files.Error_IsDirectory:  capwasm.ErrIsDirectory,
	files.Error_NotEmpty:     capwasm.ErrNotEmpty,
	files.Error_Invalid:      capwasm.ErrInvalid,
	files.Error_Quota:        capwasm.ErrQuota,
	files.Error_TooLarge:     capwasm.ErrTooLarge,
	files.Error_Closed:       capwasm.ErrClosed,
	files.Error_Unavailable:  capwasm.ErrUnavailable,
}

// Mount is one granted directory.
type Mount struct {
	Path     string // where the plugin sees it, such as /data
	Writable bool
	Quota    uint64 // bytes that may be stored there, if Bounded
	Bounded  bool   // false: there is no bound but the disk
	Used     uint64 // bytes stored there now
}

// Mounts are the granted directories, in the order of the manifest.
func Mounts() []Mount {
	found := host.Call(files.Mounts)
	mounts := make([]Mount, 0, len(found))
	for _, m := range found {
		mount := Mount{Path: m.Path, Writable: m.Access == files.Access_ReadWrite, Used: m.UsedBytes}
		if m.QuotaBytes.IsSome() {
			mount.Quota, mount.Bounded = m.QuotaBytes.Some(), true
		}
		mounts = append(mounts, mount)
	}
	return mounts
}

// Open opens a file for reading.
func Open(path string) (*File, error) { return open(path, files.Mode_Read) }

// Create opens a file for writing, and makes or empties it.
func Create(path string) (*File, error) { return open(path, files.Mode_Write) }

// CreateNew opens a file for writing that was not there before; else capwasm.ErrExists.
func CreateNew(path string) (*File, error) { return open(path, files.Mode_Create) }

// Append opens a file for writing at its end, and makes it if need be.
func Append(path string) (*File, error) { return open(path, files.Mode_Append) }

// Update opens a file that is there for reading and writing.
func Update(path string) (*File, error) { return open(path, files.Mode_Update) }

func open(path string, mode files.Mode) (*File, error) {
	handle, err := host.Try("fs.Open "+path, words, func() types.Result[*files.File, uint8] {
		return files.Open(path, mode)
	})
	if err != nil {
		return nil, err
	}
	return &File{path: path, handle: handle}, nil
}

// ReadFile is the whole of a file.
func ReadFile(path string) ([]byte, error) {
	file, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return file.readAll()
}

// WriteFile makes or empties a file, and writes all of data.
func WriteFile(path string, data []byte) error {
	file, err := Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.Write(data)
	return err
}

// Info is what is known of a file or directory. It is an io/fs.FileInfo and DirEntry.
type Info struct{ info files.Info }

// Stat tells of path; a last symbolic link is not followed.
func Stat(path string) (*Info, error) {
	found, err := host.Try("fs.Stat "+path, words, func() types.Result[files.Info, uint8] {
		return files.Stat(path)
	})
	if err != nil {
		return nil, err
	}
	return &Info{found}, nil
}

func (i *Info) Name() string                 { return i.info.Name }
func (i *Info) Size() int64                  { return int64(i.info.Size) }
func (i *Info) IsDir() bool                  { return i.info.Kind == files.Kind_Directory }
func (i *Info) Sys() any                     { return nil }
func (i *Info) Type() iofs.FileMode          { return i.Mode().Type() }
func (i *Info) Info() (iofs.FileInfo, error) { return i, nil }

// Mode is its kind; what may be done with it, the mount says.
func (i *Info) Mode() iofs.FileMode {
	switch i.info.Kind {
	case files.Kind_Directory:
		return iofs.ModeDir | 0o700
	case files.Kind_Link:
		return iofs.ModeSymlink | 0o600
	case files.Kind_File:
		return 0o600
	}
	return iofs.ModeIrregular
}

// ModTime is when it was last changed.
func (i *Info) ModTime() time.Time {
	ns := i.info.ModifiedNs
	return time.Unix(int64(ns/1e9), int64(ns%1e9)).UTC()
}

// List are the entries of a directory, sorted by name. An error is the last pair.
func List(path string) iter.Seq2[*Info, error] {
	return func(yield func(*Info, error) bool) {
		after := types.None[string]()
		for {
			page, err := host.Try("fs.List "+path, words, func() types.Result[[]files.Info, uint8] {
				return files.List(path, after)
			})
			if err != nil {
				yield(nil, err)
				return
			}
			for _, info := range page {
				if !yield(&Info{info}, nil) {
					return
				}
			}
			if len(page) == 0 {
				return
			}
			after = types.Some(page[len(page)-1].Name)
		}
	}
}

// Mkdir makes a directory, in one that is there.
func Mkdir(path string) error {
	return host.Do("fs.Mkdir "+path, words, func() types.Result[types.Unit, uint8] {
		return files.MakeDirectory(path)
	})
}

// Remove removes a file, a link or an empty directory.
func Remove(path string) error {
	return host.Do("fs.Remove "+path, words, func() types.Result[types.Unit, uint8] {
		return files.Remove(path)
	})
}

// Rename renames within one mount, and replaces a file that is there.
func Rename(from, to string) error {
	return host.Do("fs.Rename "+from, words, func() types.Result[types.Unit, uint8] {
		return files.Rename(from, to)
	})
}

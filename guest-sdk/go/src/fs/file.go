package fs

import (
	"bytes"
	"io"
	iofs "io/fs"

	"go.example/capwasm"
	"go.example/capwasm/internal/host"
	files "go.example/capwasm/internal/wit/capwasm_fs_files"

	types "go.bytecodealliance.org/pkg/wit/types"
)

// What one read or write may carry.
const piece = 1 << 20

// File is an open file, unbuffered: an io.Reader, ReaderAt, Writer, WriterAt, Seeker and Closer. It is
// not for several goroutines at a time.
type File struct {
	path   string
	handle *files.File
	at     int64
}

var _ interface {
	io.ReadWriteSeeker
	io.ReaderAt
	io.WriterAt
	io.Closer
} = (*File)(nil)

// Name is the path that it was opened by.
func (f *File) Name() string { return f.path }

// Read reads the next bytes.
func (f *File) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.read(p, f.at)
	f.at += int64(n)
	return n, err
}

// ReadAt fills p from what begins at offset; less than that is an error, at the end io.EOF.
func (f *File) ReadAt(p []byte, offset int64) (int, error) {
	for done := 0; done < len(p); {
		n, err := f.read(p[done:], offset+int64(done))
		if done += n; err != nil {
			return done, err
		}
	}
	return len(p), nil
}

func (f *File) read(p []byte, offset int64) (int, error) {
	data, err := try(f, "fs.Read ", offset, func() types.Result[[]byte, uint8] {
		return f.handle.Read(uint64(offset), uint32(min(len(p), piece)))
	})
	if err == nil && len(data) == 0 {
		err = io.EOF
	}
	return copy(p, data), err
}

func (f *File) readAll() ([]byte, error) {
	var whole bytes.Buffer
	if size, err := f.Size(); err == nil && size < 16*piece {
		whole.Grow(int(size) + bytes.MinRead)
	}
	_, err := whole.ReadFrom(f)
	return whole.Bytes(), err
}

// Write writes all of p, a piece of 1 MiB after the other.
func (f *File) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.at)
	f.at += int64(n)
	return n, err
}

// WriteAt writes all of p from offset on; a file opened by Append writes at its end.
func (f *File) WriteAt(p []byte, offset int64) (int, error) {
	for done := 0; done < len(p); {
		next := p[done:min(len(p), done+piece)]
		_, err := try(f, "fs.Write ", offset, func() types.Result[types.Unit, uint8] {
			return f.handle.Write(uint64(offset)+uint64(done), next)
		})
		if err != nil {
			return done, err
		}
		done += len(next)
	}
	return len(p), nil
}

// Seek says where the next Read or Write begins.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		size, err := f.Size()
		if err != nil {
			return 0, err
		}
		offset += size
	default:
		offset = -1
	}
	if offset < 0 {
		return 0, &capwasm.Error{Word: capwasm.ErrInvalid, Action: "fs.Seek " + f.path}
	}
	f.at = offset
	return offset, nil
}

// Size is its size in bytes.
func (f *File) Size() (int64, error) {
	size, err := try(f, "fs.Size ", 0, func() types.Result[uint64, uint8] { return f.handle.Size() })
	return int64(size), err
}

// Stat tells of the file at the path that it was opened by.
func (f *File) Stat() (iofs.FileInfo, error) {
	info, err := Stat(f.path)
	if err != nil {
		return nil, err
	}
	return info, nil
}

// Truncate cuts or extends it to that size.
func (f *File) Truncate(size int64) error {
	_, err := try(f, "fs.Truncate ", size, func() types.Result[types.Unit, uint8] {
		return f.handle.SetSize(uint64(size))
	})
	return err
}

// Sync returns once the bytes are on the device.
func (f *File) Sync() error {
	_, err := try(f, "fs.Sync ", 0, func() types.Result[types.Unit, uint8] { return f.handle.Sync() })
	return err
}

// Close closes it. Called again, it does nothing.
func (f *File) Close() error {
	if f.handle != nil {
		f.handle.Drop()
		f.handle = nil
	}
	return nil
}

// try makes one call about an open file; no offset or size is below 0.
func try[T any](f *File, verb string, n int64, call func() types.Result[T, uint8]) (T, error) {
	var none T
	switch {
	case f.handle == nil:
		return none, host.Closed(verb + f.path)
	case n < 0:
		return none, &capwasm.Error{Word: capwasm.ErrInvalid, Action: verb + f.path}
	}
	return host.Try(verb+f.path, words, call)
}

package fs

import (
	"io"
	iofs "io/fs"
)

// Dir is a granted directory, or one below it, as an io/fs.FS: for fs.WalkDir, template.ParseFS and the
// like.
type Dir string

var _ interface {
	iofs.ReadDirFS
	iofs.ReadFileFS
	iofs.StatFS
} = Dir("")

// Open opens a file or a directory.
func (d Dir) Open(name string) (iofs.File, error) {
	path, err := d.path("open", name)
	if err != nil {
		return nil, err
	}
	info, err := Stat(path)
	if err != nil {
		return nil, wrapped("open", name, err)
	}
	if info.IsDir() {
		return &listing{dir: d, name: name, info: info}, nil
	}
	file, err := Open(path)
	if err != nil {
		return nil, wrapped("open", name, err)
	}
	return file, nil
}

// ReadDir are the entries of a directory, sorted by name.
func (d Dir) ReadDir(name string) ([]iofs.DirEntry, error) {
	path, err := d.path("readdir", name)
	if err != nil {
		return nil, err
	}
	found := []iofs.DirEntry{}
	for info, err := range List(path) {
		if err != nil {
			return found, wrapped("readdir", name, err)
		}
		found = append(found, info)
	}
	return found, nil
}

// ReadFile is the whole of a file.
func (d Dir) ReadFile(name string) ([]byte, error) {
	path, err := d.path("read", name)
	if err != nil {
		return nil, err
	}
	data, err := ReadFile(path)
	return data, wrapped("read", name, err)
}

// Stat tells of a file or a directory.
func (d Dir) Stat(name string) (iofs.FileInfo, error) {
	path, err := d.path("stat", name)
	if err != nil {
		return nil, err
	}
	info, err := Stat(path)
	if err != nil {
		return nil, wrapped("stat", name, err)
	}
	return info, nil
}

func (d Dir) path(verb, name string) (string, error) {
	if !iofs.ValidPath(name) {
		return "", &iofs.PathError{Op: verb, Path: name, Err: iofs.ErrInvalid}
	}
	if name == "." {
		return string(d), nil
	}
	return string(d) + "/" + name, nil
}

func wrapped(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	return &iofs.PathError{Op: verb, Path: name, Err: err}
}

// listing is an open directory.
type listing struct {
	dir  Dir
	name string
	info *Info
	left []iofs.DirEntry
	read bool
}

func (l *listing) Stat() (iofs.FileInfo, error) { return l.info, nil }
func (l *listing) Close() error                 { return nil }
func (l *listing) Read([]byte) (int, error) {
	return 0, &iofs.PathError{Op: "read", Path: l.name, Err: iofs.ErrInvalid}
}

func (l *listing) ReadDir(n int) ([]iofs.DirEntry, error) {
	if !l.read {
		found, err := l.dir.ReadDir(l.name)
		if err != nil {
			return nil, err
		}
		l.left, l.read = found, true
	}
	if n <= 0 {
		n = len(l.left)
	} else if len(l.left) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(l.left))
	given := l.left[:n]
	l.left = l.left[n:]
	return given, nil
}

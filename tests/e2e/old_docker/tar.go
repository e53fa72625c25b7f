// Package tar is archive/tar whose readers end as those of Go 1.4 did: data and the end of a file are told one after the other,
// never at once. docker's sum of a layer loses data otherwise.
package tar

import (
	"archive/tar"
	"io"
)

type (
	Header = tar.Header
	Writer = tar.Writer
)

const (
	TypeReg           = tar.TypeReg
	TypeRegA          = '\x00'
	TypeLink          = tar.TypeLink
	TypeSymlink       = tar.TypeSymlink
	TypeChar          = tar.TypeChar
	TypeBlock         = tar.TypeBlock
	TypeDir           = tar.TypeDir
	TypeFifo          = tar.TypeFifo
	TypeXGlobalHeader = tar.TypeXGlobalHeader
)

var (
	FileInfoHeader = tar.FileInfoHeader
	NewWriter      = tar.NewWriter
)

type Reader struct{ *tar.Reader }

func NewReader(from io.Reader) *Reader { return &Reader{tar.NewReader(from)} }

func (reader *Reader) Read(into []byte) (int, error) {
	n, err := reader.Reader.Read(into)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

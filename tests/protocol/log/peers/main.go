// Checks what this project writes with Go's own code for notes and transparency logs.
//
//	peer note VKEY FILE              the note in FILE is signed by VKEY
//	peer sign SKEY FILE              prints the text in FILE as a signed note
//	peer tree FOLDER SIZE ROOT       the hash tiles in FOLDER lead to ROOT (base64)
//	peer entries FOLDER SIZE         the entry bundles in FOLDER have the leaf hashes in its tiles
//	peer inclusion FOLDER SIZE N     prints the inclusion proof of leaf N, one base64 hash a line
//	peer check-inclusion SIZE ROOT N LEAF HASH...
//	peer consistency FOLDER OLD NEW  prints the consistency proof
//	peer check-consistency OLD ROOT NEW ROOT HASH...
//
// Exit status 0: accepted; 3: rejected, with the reason; anything else is a fault of this program.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func reject(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(3)
}

func number(text string) int64 {
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return value
}

func hash(text string) tlog.Hash {
	value, err := tlog.ParseHash(text)
	if err != nil {
		reject(err)
	}
	return value
}

func hashes(texts []string) []tlog.Hash {
	values := []tlog.Hash{}
	for _, text := range texts {
		values = append(values, hash(text))
	}
	return values
}

func read(path string) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	return data
}

// folder reads tiles of height 8; Go's paths have the height in them, C2SP's have not.
type folder struct{ path string }

func (f folder) Height() int                                { return 8 }
func (f folder) SaveTiles(tiles []tlog.Tile, data [][]byte) {}
func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(f.path, path))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func reader(path string, size int64) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, index := range indexes {
			tile := tlog.TileForIndex(8, index)
			width := size>>(8*uint(tile.L)) - tile.N<<8
			if width > 256 {
				width = 256
			}
			tile.W = int(width)
			data, err := folder{path}.ReadTiles([]tlog.Tile{tile})
			if err != nil {
				return nil, err
			}
			hash, err := tlog.HashFromTile(tile, data[0], index)
			if err != nil {
				return nil, err
			}
			found = append(found, hash)
		}
		return found, nil
	})
}

func main() {
	args := os.Args[2:]
	switch os.Args[1] {
	case "note":
		verifier, err := note.NewVerifier(args[0])
		if err != nil {
			reject(err)
		}
		opened, err := note.Open(read(args[1]), note.VerifierList(verifier))
		if err != nil {
			reject(err)
		}
		fmt.Print(opened.Text)
	case "sign":
		signer, err := note.NewSigner(args[0])
		if err != nil {
			reject(err)
		}
		signed, err := note.Sign(&note.Note{Text: string(read(args[1]))}, signer)
		if err != nil {
			reject(err)
		}
		os.Stdout.Write(signed)
	case "tree":
		size, root := number(args[1]), hash(args[2])
		found, err := tlog.TreeHash(size, reader(args[0], size))
		if err != nil {
			reject(err)
		}
		if found != root {
			reject(fmt.Errorf("the tiles lead to %v", found))
		}
		// The same from the leaf hashes alone. (TileHashReader of this version of x/mod leaves some tiles
		// unauthenticated where several subtrees of the right edge lie in one tile, so it is not used.)
		var stored []tlog.Hash
		storage := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			var found []tlog.Hash
			for _, index := range indexes {
				found = append(found, stored[index])
			}
			return found, nil
		})
		for index := int64(0); index < size; index++ {
			leaf, err := reader(args[0], size).ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
			if err != nil {
				reject(err)
			}
			added, err := tlog.StoredHashesForRecordHash(index, leaf[0], storage)
			if err != nil {
				reject(err)
			}
			stored = append(stored, added...)
		}
		if found, err = tlog.TreeHash(size, storage); err != nil {
			reject(err)
		}
		if found != root {
			reject(fmt.Errorf("the leaf hashes lead to %v", found))
		}
	case "entries":
		size := number(args[1])
		for first := int64(0); first < size; first += 256 {
			tile := tlog.Tile{H: 8, L: 0, N: first / 256, W: 256}
			if size-first < 256 {
				tile.W = int(size - first)
			}
			data, err := folder{args[0]}.ReadTiles([]tlog.Tile{tile})
			if err != nil {
				reject(err)
			}
			path := strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1)
			bundle := read(filepath.Join(args[0], path))
			for index := 0; index < tile.W; index++ {
				if len(bundle) < 2 {
					reject(fmt.Errorf("%s ends after %d entries", path, index))
				}
				length := int(bundle[0])<<8 | int(bundle[1])
				if len(bundle) < 2+length {
					reject(fmt.Errorf("%s is cut short", path))
				}
				leaf := tlog.RecordHash(bundle[2 : 2+length])
				if string(leaf[:]) != string(data[0][32*index:32*index+32]) {
					reject(fmt.Errorf("entry %d has another leaf hash", first+int64(index)))
				}
				bundle = bundle[2+length:]
			}
			if len(bundle) != 0 {
				reject(fmt.Errorf("%s goes on after its entries", path))
			}
		}
	case "inclusion":
		proof, err := tlog.ProveRecord(number(args[1]), number(args[2]), reader(args[0], number(args[1])))
		if err != nil {
			reject(err)
		}
		for _, hash := range proof {
			fmt.Println(hash)
		}
	case "check-inclusion":
		proof := tlog.RecordProof(hashes(args[4:]))
		if err := tlog.CheckRecord(proof, number(args[0]), hash(args[1]), number(args[2]), hash(args[3])); err != nil {
			reject(err)
		}
	case "consistency":
		proof, err := tlog.ProveTree(number(args[2]), number(args[1]), reader(args[0], number(args[2])))
		if err != nil {
			reject(err)
		}
		for _, hash := range proof {
			fmt.Println(hash)
		}
	case "check-consistency":
		proof := tlog.TreeProof(hashes(args[4:]))
		if err := tlog.CheckTree(proof, number(args[2]), hash(args[3]), number(args[0]), hash(args[1])); err != nil {
			reject(err)
		}
	default:
		panic("unknown command")
	}
}

// Gosym reads a Go program's function table with Go's own debug/gosym. For each function it prints a line: the first
// address, the next function's, the name; then, for the first address and the one in the middle, file:line.
package main

import (
	"bufio"
	"debug/elf"
	"debug/gosym"
	"encoding/binary"
	"fmt"
	"log"
	"os"
)

func main() {
	file, err := elf.Open(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	pclntab := file.Section(".gopclntab")
	data, err := pclntab.Data()
	if err != nil {
		log.Fatal(err)
	}
	text := binary.LittleEndian.Uint64(data[24:])
	if text == 0 {
		text = moduleText(file)
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(data, text))
	if err != nil {
		log.Fatal(err)
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for _, f := range table.Funcs {
		fmt.Fprintf(out, "%x %x %s\n", f.Entry, f.End, f.Name)
		for _, pc := range []uint64{f.Entry, f.Entry + (f.End-f.Entry)/2} {
			path, line, _ := table.PCToLine(pc)
			fmt.Fprintf(out, "%s:%d\n", path, line)
		}
	}
}

// moduleText is runtime.firstmoduledata.text, which Go 1.26 and later have in .go.module. In a position-independent
// program it is the addend of a relocation.
func moduleText(file *elf.File) uint64 {
	module := file.Section(".go.module")
	data, err := module.Data()
	if err != nil {
		log.Fatal(err)
	}
	place := module.Addr + 22*8
	for _, section := range file.Sections {
		if section.Type != elf.SHT_RELA {
			continue
		}
		relocations, err := section.Data()
		if err != nil {
			log.Fatal(err)
		}
		for ; len(relocations) >= 24; relocations = relocations[24:] {
			if binary.LittleEndian.Uint64(relocations) == place {
				return binary.LittleEndian.Uint64(relocations[16:])
			}
		}
	}
	return binary.LittleEndian.Uint64(data[22*8:])
}

//! Loads the programs of BPF objects and checks what they were compiled to: `load OBJECT…`
//!
//! Apart from the tasks themselves, since these must compile fast and without aya.

#![forbid(unsafe_code)]

use std::{
    env, fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{EbpfLoader, programs::Program};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

/// `BPF_JMP | BPF_CALL`, RFC 9669 §4.3.
const CALL: u8 = 0x85;
/// Where the source register holds this, a call leads to another function of the object.
const PSEUDO_CALL: u8 = 1;
const TAIL_CALL: i32 = 12;
/// The objects that are attached.
const ATTACHED: [&str; 2] = ["portdemux-xdp", "portdemux-flows"];
/// What attached programs may call: each is verified by itself, and only what is rejected, redirected, comes for a
/// socket, is counted where the CPU has no block, or has its address asked among other things, pays for the call.
const APART: [&str; 8] = [
    "portdemux_reject",
    "portdemux_settle",
    "portdemux_present",
    "portdemux_count",
    "portdemux_count_flow",
    "portdemux_claim4",
    "portdemux_claim6",
    "portdemux_search",
];
/// The object that may log, as it is attached to nothing.
const SHADOW: &str = "portdemux-shadow";
/// The map of `aya-log-ebpf`.
const LOG: &str = "AYA_LOGS";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // Nothing is left to do if that cannot be said either.
            let _ = writeln!(io::stderr(), "error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut out = io::stdout();
    writeln!(
        out,
        "{:20} {:20} {:>8} {:>6} {:>10} {:>9} {:>8}",
        "OBJECT", "PROGRAM", "COMPILED", "CALLS", "TAIL CALLS", "VERIFIED", "LOADED"
    )?;
    let mut faults = Vec::new();
    for path in env::args_os().skip(1) {
        let path = Path::new(&path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let functions = functions(&content).with_context(|| format!("read {name}"))?;
        let bpf = EbpfLoader::new()
            .load(&content)
            .with_context(|| format!("load the maps of {name}"))?;
        let names: Vec<String> = bpf.programs().map(|(name, _)| name.to_owned()).collect();
        for program_name in names {
            // With maps of its own: those of targets take no programs with and without frames in several
            // buffers at once (Linux 5.18, kernel/bpf/core.c, bpf_prog_map_compatible).
            let mut alone = EbpfLoader::new()
                .load(&content)
                .with_context(|| format!("load the maps of {name}"))?;
            let program = alone.program_mut(&program_name).context("no program")?;
            let loaded = if let Program::Xdp(program) = program {
                program.load()
            } else if let Program::SchedClassifier(program) = program {
                program.load()
            } else if let Program::SkLookup(program) = program {
                program.load()
            } else if let Program::SockOps(program) = program {
                program.load()
            } else if let Program::RawTracePoint(program) = program {
                program.load()
            } else {
                bail!("{name}: {program_name} is of a type that this check does not know yet");
            };
            // All refusals at once, as each takes a machine to see on another kernel.
            if let Err(err) = loaded {
                faults.push(format!("{name}: the kernel refuses {program_name}"));
                writeln!(out, "{name}: {program_name}: {err:#}")?;
                continue;
            }
            let info = program.info().context("ask the kernel about a program")?;
            let function = functions
                .iter()
                .find(|function| function.name == program_name)
                .ok_or_else(|| anyhow!("{name}: no function {program_name}"))?;
            writeln!(
                out,
                "{name:20} {program_name:20} {:>8} {:>6} {:>10} {:>9} {:>8}",
                function.instructions,
                function.calls.len(),
                function.tail_calls,
                info.verified_instruction_count()
                    .map_or_else(|| "–".to_owned(), |count| count.to_string()),
                info.size_translated()
                    .map_or_else(|| "–".to_owned(), |size| (size / 8).to_string()),
            )?;
        }
        if name != SHADOW && bpf.map(LOG).is_some() {
            faults.push(format!("{name} logs"));
        }
        for function in &functions {
            // A call costs the attached program what a whole look-up does. Memory functions are loops
            // over single bytes; the words that the shadow program logs differ in length, which takes one.
            let is_fault = |callee: &&String| {
                ATTACHED.contains(&&*name) && !APART.contains(&callee.as_str())
                    || is_memory(callee) && (name != SHADOW || *callee != "memcpy")
            };
            for callee in function.calls.iter().filter(is_fault) {
                faults.push(format!("{name}: {} calls {callee}", function.name));
            }
        }
    }
    if !faults.is_empty() {
        bail!("this must not be: {}", faults.join(", "));
    }
    Ok(())
}

fn is_memory(function: &str) -> bool {
    ["memcpy", "memmove", "memset", "memcmp", "bcmp"].contains(&function)
}

/// A function of an object.
struct Function {
    name: String,
    instructions: usize,
    /// The functions of the same object that it calls, once for each call.
    calls: Vec<String>,
    tail_calls: usize,
}

fn functions(content: &[u8]) -> Result<Vec<Function>> {
    let file = object::File::parse(content)?;
    let mut functions = Vec::new();
    for symbol in file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text)
    {
        let section = file.section_by_index(symbol.section_index().context("no section")?)?;
        let code = section
            .data_range(symbol.address(), symbol.size())?
            .context("a function outside of its section")?;
        let (instructions, _) = code.as_chunks::<8>();
        let mut function = Function {
            name: symbol.name()?.to_owned(),
            instructions: instructions.len(),
            calls: Vec::new(),
            tail_calls: 0,
        };
        for (index, [opcode, registers, _, _, immediate @ ..]) in instructions.iter().enumerate() {
            let immediate = if cfg!(target_endian = "big") {
                i32::from_be_bytes(*immediate)
            } else {
                i32::from_le_bytes(*immediate)
            };
            match (*opcode, registers >> 4) {
                (CALL, PSEUDO_CALL) => {
                    let at = symbol.address() + 8 * u64::try_from(index)?;
                    function.calls.push(callee(&file, &section, at, immediate)?);
                }
                (CALL, 0) if immediate == TAIL_CALL => function.tail_calls += 1,
                _ => {}
            }
        }
        functions.push(function);
    }
    Ok(functions)
}

/// The name of the function that the call at an offset of a section leads to.
fn callee(
    file: &object::File<'_>,
    section: &object::Section<'_, '_>,
    at: u64,
    immediate: i32,
) -> Result<String> {
    // The immediate counts instructions from the one after the call.
    let distance = (i64::from(immediate) + 1) * 8;
    let (section, target) = match section.relocations().find(|(offset, _)| *offset == at) {
        None => (section.index(), i64::try_from(at)? + distance),
        Some((_, relocation)) => {
            let object::RelocationTarget::Symbol(symbol) = relocation.target() else {
                bail!("a call to something without a name");
            };
            let symbol = file.symbol_by_index(symbol)?;
            if symbol.kind() != SymbolKind::Section {
                return Ok(symbol.name()?.to_owned());
            }
            // Relative to the section that holds the function.
            (symbol.section_index().context("no section")?, distance)
        }
    };
    let target = u64::try_from(target)?;
    let symbol = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text)
        .find(|symbol| symbol.section_index() == Some(section) && symbol.address() == target)
        .with_context(|| format!("no function at {target:#x}"))?;
    Ok(symbol.name()?.to_owned())
}
